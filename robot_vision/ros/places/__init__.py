"""The place node: the map, recognition, loops, and where the robot is in it."""
