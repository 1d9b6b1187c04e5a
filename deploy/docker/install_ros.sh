#!/bin/bash
# Install ROS 2 ($ROS_DISTRO) and the system's libraries that yolojet_ros needs into an image.
#   install_ros.sh VERSION_OF_ROS2_APT_SOURCE
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

packages=(python3-numpy python3-scipy python3-tqdm python3-venv python3-yaml)
if [ -d "/opt/ros/$ROS_DISTRO" ]; then
  # JetPack 5: there are no packages of Humble for Ubuntu 20.04, so the base built it from source,
  # with vision_msgs and cv_bridge, beside NVIDIA's OpenCV. Its list of ROS's repository has a key
  # that expired in 2025 and would stop apt.
  rm -f /etc/apt/sources.list.d/ros2*.list
  apt-get update
else
  # shellcheck source=/dev/null
  . /etc/os-release
  apt-get update
  apt-get install -y --no-install-recommends ca-certificates curl
  releases=https://github.com/ros-infrastructure/ros-apt-source/releases/download
  curl --fail --silent --show-error --location --retry 3 --output /tmp/ros2-apt-source.deb \
    "$releases/$1/ros2-apt-source_$1.${VERSION_CODENAME}_all.deb"
  apt-get install -y --no-install-recommends /tmp/ros2-apt-source.deb
  rm /tmp/ros2-apt-source.deb
  apt-get update
  for name in ros-base cv-bridge vision-msgs diagnostic-msgs bondpy; do
    packages+=("ros-$ROS_DISTRO-$name")
  done
  packages+=(python3-colcon-common-extensions python3-opencv)
fi
apt-get install -y --no-install-recommends "${packages[@]}"
rm -rf /var/lib/apt/lists/*
