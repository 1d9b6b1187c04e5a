#!/bin/bash
# Enter ROS 2, the workspace and the virtual environment of the image, then become the command:
# detector_node or camera_node of yolojet_ros, or any other (yolojet, ros2, bash). Started as
# yolojet, which `docker exec` and health checks do, it is that command.
set -eo pipefail
[ "$(basename "$0")" != yolojet ] || set -- yolojet "$@"

for setup in "/opt/ros/$ROS_DISTRO/setup.bash" "/opt/ros/$ROS_DISTRO/install/setup.bash" \
             /opt/yolojet/install/setup.bash /opt/yolojet/venv/bin/activate; do
  if [ -f "$setup" ]; then
    # shellcheck source=/dev/null
    . "$setup"
  fi
done
package=/opt/yolojet/install/yolojet_ros
export PATH="$package/bin:$package/lib/yolojet_ros:$PATH"
exec "$@"
