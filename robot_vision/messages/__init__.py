"""Messages of ROS as bytes and fields, without rclpy."""
