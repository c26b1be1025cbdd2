"""ROS 2 nodes and what they are made of: the only folder that imports rclpy."""

# The executables of setup.py, and the module in which each one's `main` lies.
EXECUTABLES = {
    "perception_node": "robot_vision.ros.perception.node",
    "place_node": "robot_vision.ros.places.node",
    "composed_nodes": "robot_vision.ros.composed_nodes",
    "filter_node": "robot_vision.ros.filters.node",
    "gate_node": "robot_vision.ros.gate.node",
    "driver_node": "robot_vision.ros.driving.node",
    "localiser_node": "robot_vision.ros.localising.node",
    "repeat_node": "robot_vision.ros.repeating.node",
    "camera_player": "robot_vision.ros.player.node",
    "simulator_node": "robot_vision.ros.simulation.node",
    "viewer_node": "robot_vision.ros.viewer.node",
}
