"""Place map, descriptor index and recogniser: where the robot has been."""
