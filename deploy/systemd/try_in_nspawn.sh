#!/bin/bash
# Boot a Debian with systemd in a container, install the units for real and put them to the test:
#   apt install systemd-container
#   deploy/docker/try_in_chroot.py deploy/docker/Dockerfile.cpu FOLDER
#   deploy/systemd/try_in_nspawn.sh FOLDER/1 NEW_ROOT
# It starts camera and detector under all of their limits, kills the detector, lets its watchdog
# bite, looks what stays behind, and removes everything again. Needs root; ends by itself.
set -euo pipefail

[ $# = 2 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2; }
image=$1 root=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
[ -x "$image/opt/yolojet/.venv/bin/python" ] ||
  { echo "$image is no root of the CPU image; try_in_chroot.py makes one" >&2; exit 2; }
[ ! -e "$root" ] || { echo "$root exists; name a new folder" >&2; exit 2; }

cp -a --one-file-system "$image" "$root"
cp /etc/resolv.conf "$root/etc/resolv.conf"
systemd-nspawn --quiet --pipe --directory "$root" --register=no --keep-unit --resolv-conf=off \
  sh -c 'userdel yolojet && rm -rf /var/lib/yolojet /etc/yolojet && apt-get update &&
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends dbus logrotate \
      systemd systemd-sysv udev' > "$root/opt/apt.log" 2>&1
mkdir -p "$root/opt/checkout/docs"
cp -r "$here/deploy" "$root/opt/checkout/"
cp "$here/docs/deployment.md" "$root/opt/checkout/docs/"

cat > "$root/opt/yolojet/setup.bash" <<'SETUP'
export AMENT_PREFIX_PATH=/opt/yolojet/.venv ROS_DISTRO=kilted ROS_VERSION=2
export PATH=/opt/yolojet/.venv/bin:$PATH
SETUP

cat > "$root/etc/systemd/system/try.service" <<'UNIT'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/bash /opt/try.sh
ExecStopPost=/bin/systemctl poweroff --force
StandardOutput=file:/opt/try.log
StandardError=inherit
UNIT
mkdir -p "$root/etc/systemd/system/graphical.target.wants"
ln -s ../try.service "$root/etc/systemd/system/graphical.target.wants/try.service"

cat > "$root/opt/try.sh" <<'TRY'
set -uo pipefail
failed=0
check() { # WHAT COMMAND...
  local what=$1
  shift
  if "$@" > /tmp/out 2>&1; then echo "ok    $what"; else
    echo "FAIL  $what"; cat /tmp/out; failed=1; fi
}
soon() { # SECONDS COMMAND...
  local end=$((SECONDS + $1))
  shift
  until "$@"; do [ $SECONDS -lt $end ] || return 1; sleep 0.5; done
}
shows() { [ "$(systemctl show -P "$2" "yolojet-$1")" = "$3" ]; }
restarted() { [ "$(systemctl show -P NRestarts "yolojet-$1")" -ge "$2" ]; }
run=/usr/local/lib/yolojet/run

check 'install.sh' /opt/checkout/deploy/install.sh --camera --setup /opt/yolojet/setup.bash
check 'a second run has nothing to write' bash -c \
  '! /opt/checkout/deploy/install.sh --camera --setup /opt/yolojet/setup.bash | grep -E "^(write|enable)"'
check 'the user yolojet is in video and render' bash -c 'id yolojet | grep video | grep -q render'
check 'both are enabled' systemctl is-enabled yolojet-detector yolojet-camera
check 'systemd-analyze verify' systemd-analyze verify /etc/systemd/system/yolojet-*.service
sed -i 's|source: .*|source: synthetic|; s|rate: .*|rate: 10.0|' /etc/yolojet/camera.yaml
mkdir -p /etc/systemd/system/yolojet-{detector,camera}.service.d
if grep -rqs NOTIFY_SOCKET /opt/yolojet/.venv/lib/python3*/site-packages/yolojet_ros; then
  notify=1
  printf '[Service]\nWatchdogSec=5\n' > /etc/systemd/system/yolojet-detector.service.d/try.conf
else
  notify=
  echo '--    the nodes of this version do not notify systemd: Type=simple, no watchdog'
  for name in detector camera; do
    printf '[Service]\nType=simple\nWatchdogSec=0\n' \
      > /etc/systemd/system/yolojet-$name.service.d/try.conf
  done
fi
systemctl daemon-reload
check 'start' timeout 60 systemctl start yolojet-camera yolojet-detector
check 'another user hears the detector' soon 20 runuser -u nobody -- bash -c "
  export ROS_LOG_DIR=/tmp/nobody && . /opt/yolojet/setup.bash && python - <<'PY'
import sys, rclpy
from rclpy.node import Node
from vision_msgs.msg import Detection2DArray
rclpy.init()
node, seen = Node('try'), []
node.create_subscription(Detection2DArray, 'detections', seen.append, 10)
for _ in range(100):
    rclpy.spin_once(node, timeout_sec=0.1)
sys.exit(not seen)
PY"
if runuser -u yolojet -- $run yolojet --help | grep -q '^ *health'; then
  check 'yolojet health' runuser -u yolojet -- $run yolojet health --timeout 10
fi
pid=$(systemctl show -P MainPID yolojet-detector)
check 'it runs as yolojet' [ "$(stat -c %U /proc/$pid)" = yolojet ]
check 'it sees /dev/shm' bash -c 'ls /dev/shm | grep -q fast'
check 'no capability is left' grep -q 'CapEff:.0000000000000000' /proc/$pid/status
check 'no new privileges' grep -q 'NoNewPrivs:.1' /proc/$pid/status
check '/usr is read-only to it' bash -c "! nsenter -t $pid -m -- touch /usr/x"
check 'its log file' bash -c 'ls /var/log/yolojet/*.log'
check 'its lines are in the journal' bash -c 'journalctl -u yolojet-detector | grep -q "images over DDS"'
kill -KILL "$pid"
check 'killed, it is restarted' soon 20 restarted detector 1
check 'and active again' soon 20 shows detector ActiveState active
if [ -n "$notify" ]; then
  sleep 8
  check 'the watchdog leaves it alone' shows detector NRestarts 1
  check 'it has not bitten' shows detector Result success
  kill -STOP "$(systemctl show -P MainPID yolojet-detector)"
  check 'stopped, the watchdog restarts it' soon 30 restarted detector 2
  check 'the journal says why' bash -c 'journalctl -u yolojet-detector | grep -q "Watchdog timeout"'
  systemctl stop yolojet-camera
  sleep 12
  check 'without images it is idle, not hung' shows detector NRestarts 2
  check 'and active' shows detector ActiveState active
  systemctl start yolojet-camera
fi
check 'logrotate' logrotate --force --state /tmp/state /etc/logrotate.d/yolojet
systemctl stop yolojet-detector yolojet-camera
check 'both end cleanly' bash -c 'systemctl show -P Result yolojet-detector yolojet-camera |
  grep -v "^$" | sort -u | grep -qx success'
check 'nothing of theirs stays in /dev/shm' bash -c '[ -z "$(find /dev/shm -user yolojet)" ]'
for name in detector camera; do
  systemd-analyze security "yolojet-$name" | tail -1
done
check 'uninstall' /opt/checkout/deploy/install.sh --uninstall
check 'the edited camera.yaml stays, and no other setting' bash -c '[ "$(ls /etc/yolojet)" = camera.yaml ]'
check 'no unit stays' bash -c '! systemctl list-unit-files | grep yolojet'
check 'purge' /opt/checkout/deploy/install.sh --uninstall --purge
check 'no user, no file stays' bash -c '! id yolojet && ! ls -d /etc/yolojet /var/*/yolojet /usr/local/lib/yolojet'
echo "failed: $failed"
TRY

systemd-nspawn --quiet --boot --directory "$root" --register=no --keep-unit --resolv-conf=off \
  --private-network < /dev/null > "$root/opt/boot.log" 2>&1 || true
cat "$root/opt/try.log"
grep -qx 'failed: 0' "$root/opt/try.log"
