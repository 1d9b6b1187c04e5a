"""YOLOv8 detection and tracking for ROS 2, on TensorRT where there is a GPU."""

__version__ = '0.1.0'
