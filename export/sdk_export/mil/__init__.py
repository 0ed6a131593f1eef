"""Our evaluator of Core ML programs: what the saved bytes compute, on any machine."""
