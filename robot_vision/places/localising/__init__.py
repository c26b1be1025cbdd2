"""Active localisation: move until the pose in a place map is sure."""
