#!/bin/bash
# Runs a command with ROS, the workspace and its environment sourced: of the Dockerfile.
set -e
. "/opt/ros/${ROS_DISTRO}/setup.bash"
. /ws/.venv/bin/activate
. /ws/install/setup.bash
exec "$@"
