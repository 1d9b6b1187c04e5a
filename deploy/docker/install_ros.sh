#!/bin/bash
# Install ROS 2 ($ROS_DISTRO) and what package.xml names into an image of Ubuntu.
#   install_ros.sh VERSION_OF_ROS2_APT_SOURCE PACKAGE_XML
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
ros=${ROS_FOLDER:-/opt/ros}/$ROS_DISTRO

packages=(python3-venv)
while read -r name; do
  case $name in
    rviz*) ;;  # nobody looks at a container's screen
    python3-opencv) [ -d "$ros" ] || packages+=("$name") ;;
    python3-*) packages+=("$name") ;;
    *) [ -d "$ros" ] || packages+=("ros-$ROS_DISTRO-${name//_/-}") ;;
  esac
done < <(sed -n 's|.*<exec_depend>\(.*\)</exec_depend>.*|\1|p' "$2")

if [ -d "$ros" ]; then
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
  rm -f /tmp/ros2-apt-source.deb
  apt-get update
  packages+=("ros-$ROS_DISTRO-ros-base" "ros-$ROS_DISTRO-bondpy" python3-colcon-common-extensions)
fi
apt-get install -y --no-install-recommends "${packages[@]}"
rm -rf /var/lib/apt/lists/*
