"""Trace, lower, write, prove: from a torch model to a bundle."""
