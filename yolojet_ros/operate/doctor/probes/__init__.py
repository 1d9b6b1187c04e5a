"""What is tried in a process of its own, because it may crash, hang or be impossible to import."""
