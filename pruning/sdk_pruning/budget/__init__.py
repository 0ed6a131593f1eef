"""How many units each group keeps: from a ratio, a share of the FLOPs or a latency to widths.

Plain data in and out, no graph: menus of widths with their errors (`menus`), and costs as sums over layers
(`costs`).
"""
