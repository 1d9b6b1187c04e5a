"""The executables that ROS starts."""
