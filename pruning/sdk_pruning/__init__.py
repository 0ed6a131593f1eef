"""Structured pruning by subset fidelity. Empty until it lands."""
