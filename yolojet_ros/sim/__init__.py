"""A deterministic synthetic world and its ground truth."""
