"""The viewer node: what the robot sees and says, on a web page."""
