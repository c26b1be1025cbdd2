"""A driver by what the camera sees: laws that turn steering and free distance into motion. No ROS here."""
