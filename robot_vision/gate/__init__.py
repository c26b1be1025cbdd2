"""The safety gate: how fast a robot may drive by what perception says of now. Nothing here imports ROS."""
