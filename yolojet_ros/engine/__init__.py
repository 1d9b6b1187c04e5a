"""Offline: build, verify and inspect TensorRT engines."""
