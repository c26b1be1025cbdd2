# The package on top of ROS 2 from apt, as docs/install.md does it:
#   docker build -t robot_vision . && docker run --rm --net=host --shm-size=1g robot_vision \
#     ros2 launch robot_vision perception.launch.py model:=demo
# --build-arg ROS_DISTRO=jazzy takes another distribution.
ARG ROS_DISTRO=kilted
FROM ros:${ROS_DISTRO}-ros-base

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV DEBIAN_FRONTEND=noninteractive
WORKDIR /ws

# What the package depends on, by its package.xml alone, so that a change of the sources installs nothing again.
COPY package.xml src/robot_vision/
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv python3-pip \
    && rosdep update --rosdistro "${ROS_DISTRO}" \
    && rosdep install --from-paths src --ignore-src -y --skip-keys "python3-onnxruntime-pip python3-rosbags-pip" \
    && rm -rf /var/lib/apt/lists/*

# NumPy 1, since apt's OpenCV and cv_bridge of Ubuntu 24.04 are built for it.
RUN python3 -m venv --system-site-packages .venv \
    && touch .venv/COLCON_IGNORE \
    && .venv/bin/python -m pip install --no-cache-dir 'numpy<2' onnxruntime rosbags 'rich>=13' openvino faiss-cpu

COPY setup.py pyproject.toml README.md LICENSE src/robot_vision/
COPY resource src/robot_vision/resource
COPY launch src/robot_vision/launch
COPY config src/robot_vision/config
COPY models src/robot_vision/models
COPY robot_vision src/robot_vision/robot_vision
RUN . /opt/ros/"${ROS_DISTRO}"/setup.bash \
    && . .venv/bin/activate \
    && colcon build --packages-select robot_vision

# Not as root: the nodes need none of its rights. Where Ubuntu's image has a user 1000, this is that one.
RUN id -u 1000 >/dev/null 2>&1 || useradd --create-home --uid 1000 robot
USER 1000
COPY --chmod=755 tools/container_entrypoint.sh /container_entrypoint.sh
ENTRYPOINT ["/container_entrypoint.sh"]
CMD ["ros2", "launch", "robot_vision", "perception.launch.py", "model:=demo"]
