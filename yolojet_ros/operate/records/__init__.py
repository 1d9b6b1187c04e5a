"""Records of what happened around an event: compressed images and results, in bags on disk."""
