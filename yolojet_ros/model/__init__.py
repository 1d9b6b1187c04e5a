"""Offline: the YOLOv8 network, its training, export, compression and accuracy."""
