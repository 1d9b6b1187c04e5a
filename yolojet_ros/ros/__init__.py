"""Conversions between ROS types and the arrays of this package."""
