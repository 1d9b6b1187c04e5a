#!/bin/bash
# Install the units, settings and rules of yolojet on this machine, or into a staged root.
set -Eeuo pipefail

usage() {
  cat <<'TEXT'
usage: install.sh [--dry-run] [--root DIR] [--setup FILE]... [--camera] [--no-enable]
       install.sh --uninstall [--purge] [--dry-run] [--root DIR]

  --setup FILE  a file to source before a node starts: ROS 2, the workspace, the virtual
                environment; give it once for each, in their order (default: see
                /etc/yolojet/yolojet.env)
  --camera      enable yolojet-camera at boot, beside yolojet-detector
  --no-enable   enable neither
  --uninstall   remove what was installed; settings that were edited, models, records and logs stay
  --purge       with --uninstall: remove these and the user yolojet, too
  --dry-run     say what would be done, and do nothing
  --root DIR    act on the files below DIR instead of this machine, for images and packages

It may be run again at any time: it replaces what has changed and keeps settings that were edited.
If it fails, it puts everything back as it was.
TEXT
}

unset CDPATH
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
library=usr/local/lib/yolojet
manifest=$library/installed  # "SHA256  FILE" of all that was written, "dir  FOLDER" of new folders
wants=etc/systemd/system/multi-user.target.wants

# Mode, file here, file there. Settings are kept where they were edited.
programs=(
  "0755 systemd/run $library/run"
  "0644 systemd/yolojet-detector.service etc/systemd/system/yolojet-detector.service"
  "0644 systemd/yolojet-camera.service etc/systemd/system/yolojet-camera.service"
  "0644 etc/journald.conf etc/systemd/journald.conf.d/50-yolojet.conf"
  "0644 etc/logrotate etc/logrotate.d/yolojet"
  "0644 etc/sysusers.conf etc/sysusers.d/yolojet.conf"
  "0644 etc/tmpfiles.conf etc/tmpfiles.d/yolojet.conf"
  "0644 etc/cameras.rules etc/udev/rules.d/70-yolojet-cameras.rules"
  "0644 ../docs/deployment.md usr/local/share/doc/yolojet/deployment.md"
)
settings=(
  "0644 etc/yolojet.env etc/yolojet/yolojet.env"
  "0644 etc/detector.yaml etc/yolojet/detector.yaml"
  "0644 etc/camera.yaml etc/yolojet/camera.yaml"
)
data=(var/lib/yolojet var/lib/yolojet/models var/lib/yolojet/records var/cache/yolojet
      var/log/yolojet)

action=install root='' dry='' purge='' enable=detector
setup=()

refuse() {
  printf 'install.sh: %s\n' "$1" >&2
  exit 2
}

say() { printf '%s%s\n' "${dry:+would }" "$1"; }

while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --dry-run) dry=1 ;;
    --uninstall) action=uninstall ;;
    --purge) purge=1 ;;
    --camera) enable='detector camera' ;;
    --no-enable) enable='' ;;
    --root | --setup)
      [ $# -gt 1 ] || refuse "$1 needs a value after it"
      if [ "$1" = --root ]; then root=$2; else setup+=("$2"); fi
      shift ;;
    *) refuse "unknown option '$1'; --help lists them" ;;
  esac
  shift
done
[ -z "$purge" ] || [ $action = uninstall ] || refuse '--purge goes with --uninstall only'

live=''
if [ -n "$root" ]; then
  [ -d "$root" ] || refuse "--root is $root, where there is no folder; make it first"
  [ -w "$root" ] || refuse "--root is $root, which cannot be written; choose another or use sudo"
  root=$(cd -- "$root" && pwd)
  root=${root%/}
else
  live=1
  [ "$(id -u)" = 0 ] || [ -n "$dry" ] ||
    refuse 'it writes to /etc and /usr/local: run it with sudo, or give --root DIR'
  [ -d /run/systemd/system ] || [ -n "$dry" ] ||
    refuse 'systemd does not run here; give --root DIR to prepare the files of another machine'
fi
exec 9< "${root:-/}"
flock -n 9 || refuse 'another install.sh is at work here; wait for its end'

# ---- steps, each of which can be taken back

work=$(mktemp -d)
changed=() backups=() folders=()

take_back() {
  local code=$? index
  trap - ERR EXIT INT TERM HUP
  set +e
  for ((index = ${#changed[@]} - 1; index >= 0; index--)); do
    rm -f "${changed[index]}" "${changed[index]}.yolojet-new"
    [ -z "${backups[index]}" ] || cp -a "${backups[index]}" "${changed[index]}"
  done
  for ((index = ${#folders[@]} - 1; index >= 0; index--)); do
    rmdir "${folders[index]}" 2> /dev/null
  done
  rm -rf "$work"
  printf 'install.sh: it failed, and what it had written is as it was before\n' >&2
  exit $((code ? code : 1))
}
trap take_back ERR INT TERM HUP
trap 'rm -rf "$work"' EXIT

# Make a folder and those above it, and remember the new ones.
make_folder() {
  [ ! -d "$1" ] || return 0
  make_folder "$(dirname "$1")"
  folders+=("$1")
  mkdir "$1"
}

# Keep what is there, to be put back, before it is changed.
remember() {
  local backup=''
  if [ -e "$1" ] || [ -L "$1" ]; then
    backup=$work/${#changed[@]}
    cp -a "$1" "$backup"
  fi
  changed+=("$1")
  backups+=("$backup")
}

# Write a file beside its place and rename it, so that it is whole at any moment.
place() { # MODE SOURCE TARGET
  local target=$root/$3
  [ ! -d "$target" ] || refuse "/$3 is a folder, where a file belongs; move it away"
  if [ -f "$target" ] && cmp -s "$2" "$target" && [ "0$(stat -c %a "$target")" = "$1" ]; then
    return 0
  fi
  say "write /$3"
  [ -z "$dry" ] || return 0
  make_folder "$(dirname "$target")"
  remember "$target"
  install -m "$1" "$2" "$target.yolojet-new"
  mv -fT "$target.yolojet-new" "$target"
}

hash_of() { sha256sum "$1" | cut -d ' ' -f 1; }

# Tell whether a file is as some version of this script has written it.
is_ours() { # FILE
  [ -f "$root/$manifest" ] && grep -qxF "$(hash_of "$root/$1")  $1" "$root/$manifest"
}

write_manifest() { # SOURCE
  [ -n "$dry" ] || cmp -s "$1" "$root/$manifest" || {
    make_folder "$root/$library"
    remember "$root/$manifest"
    install -m 0644 "$1" "$root/$manifest.yolojet-new"
    mv -f "$root/$manifest.yolojet-new" "$root/$manifest"
  }
}

# ---- installing

# Fill in the setup files; what is there with other ones and was edited is not touched.
prepare_env() {
  cp "$here/etc/yolojet.env" "$work/yolojet.env"
  [ ${#setup[@]} -gt 0 ] || {
    ! is_ours etc/yolojet/yolojet.env 2> /dev/null || cp "$root/etc/yolojet/yolojet.env" "$work/"
    return 0
  }
  local file line
  for file in "${setup[@]}"; do
    case $file in
      *[[:space:]\"\\\$]*) refuse "--setup $file: its name has a blank, quote, \\ or \$" ;;
      /*) ;;
      *) refuse "--setup $file is relative; give the whole path" ;;
    esac
    [ -f "$root$file" ] || [ -z "$live" ] || refuse "--setup $file: there is no such file"
  done
  line="YOLOJET_SETUP=\"${setup[*]}\""
  if [ -f "$root/etc/yolojet/yolojet.env" ] && ! is_ours etc/yolojet/yolojet.env &&
     ! grep -qxF "$line" "$root/etc/yolojet/yolojet.env"; then
    refuse "/etc/yolojet/yolojet.env was edited; change YOLOJET_SETUP there, not by --setup"
  fi
  awk -v line="$line" '/^YOLOJET_SETUP=/ { print line; next } { print }' \
    "$here/etc/yolojet.env" > "$work/yolojet.env"
}

source_of() { # FILE HERE
  case $1 in
    etc/yolojet.env) echo "$work/yolojet.env" ;;
    *) echo "$here/$1" ;;
  esac
}

do_install() {
  local mode from to name folder
  for entry in "${programs[@]}" "${settings[@]}"; do
    read -r mode from to <<< "$entry"
    [ -f "$here/$from" ] || refuse "$here/$from is missing; run it in a whole checkout"
  done
  prepare_env

  # The record comes first, with what is about to be written: whatever stops this, a second run
  # and --uninstall know what may be there.
  { [ ! -f "$root/$manifest" ] || cat "$root/$manifest"; } > "$work/manifest"
  for entry in "${programs[@]}" "${settings[@]}"; do
    read -r mode from to <<< "$entry"
    printf '%s  %s\n' "$(hash_of "$(source_of "$from")")" "$to" >> "$work/manifest"
    new_folders "$root/$(dirname "$to")"
  done
  for name in $enable; do
    printf 'link  %s\n' "$wants/yolojet-$name.service" >> "$work/manifest"
    new_folders "$root/$wants"
  done
  for folder in "${data[@]}"; do new_folders "$root/$folder"; done
  new_folders "$root/$library"
  awk '!seen[$0]++' "$work/manifest" > "$work/manifest.once"
  write_manifest "$work/manifest.once"

  for entry in "${programs[@]}"; do
    read -r mode from to <<< "$entry"
    place "$mode" "$here/$from" "$to"
  done
  for entry in "${settings[@]}"; do
    read -r mode from to <<< "$entry"
    if [ -f "$root/$to" ] && ! cmp -s "$(source_of "$from")" "$root/$to" && ! is_ours "$to"; then
      say "keep /$to, which was edited"
    else
      place "$mode" "$(source_of "$from")" "$to"
    fi
  done
  for name in $enable; do
    [ ! -L "$root/$wants/yolojet-$name.service" ] || continue
    say "enable yolojet-$name at boot"
    [ -z "$dry" ] || continue
    make_folder "$root/$wants"
    remember "$root/$wants/yolojet-$name.service"
    ln -s "../yolojet-$name.service" "$root/$wants/yolojet-$name.service"
  done
  if [ -z "$live" ]; then
    # Their owner is set by systemd-sysusers and systemd-tmpfiles when that root starts.
    for folder in "${data[@]}"; do
      [ -d "$root/$folder" ] || say "make /$folder"
      [ -n "$dry" ] || make_folder "$root/$folder"
    done
  else
    tell_system
  fi
}

# Note the folders that do not exist yet, from the uppermost on.
new_folders() {
  local path=$1
  local -a missing=()
  while [ ! -d "$path" ]; do
    missing=("dir  ${path#"$root"/}" "${missing[@]}")
    path=$(dirname "$path")
  done
  [ ${#missing[@]} = 0 ] || printf '%s\n' "${missing[@]}" >> "$work/manifest"
}

tell_system() {
  say 'make the user yolojet and its folders, and tell systemd, udev and journald'
  [ -z "$dry" ] || return 0
  systemd-sysusers /etc/sysusers.d/yolojet.conf
  systemd-tmpfiles --create /etc/tmpfiles.d/yolojet.conf
  systemctl daemon-reload
  systemctl try-restart systemd-journald.service
  ! command -v udevadm > /dev/null || udevadm control --reload || true
  local file
  # shellcheck source=/dev/null
  for file in $(. /etc/yolojet/yolojet.env && printf '%s' "${YOLOJET_SETUP:-}"); do
    runuser -u yolojet -- test -r "$file" || printf 'install.sh: note: %s\n' \
      "the user yolojet cannot read $file; mend that or /etc/yolojet/yolojet.env before the start" >&2
  done
  printf 'start it: systemctl start yolojet-detector\n'
}

# ---- removing

do_uninstall() {
  local path
  # Nothing to take back: the record goes last, so that the next run removes the rest.
  trap 'printf "install.sh: it failed; run it again to remove the rest\n" >&2; exit 1' ERR
  trap - INT TERM HUP
  if [ ! -f "$root/$manifest" ]; then
    printf 'nothing is installed here\n'
    [ -z "$purge" ] || purge_data
    remove_user
    return 0
  fi
  if [ -n "$live" ] && [ -z "$dry" ]; then
    systemctl disable --now yolojet-detector.service yolojet-camera.service 2> /dev/null || true
  fi
  while read -r path; do
    remove_file "$path"
  done < <(awk '$1 != "dir" { print $2 }' "$root/$manifest" | sort -u)
  cp "$root/$manifest" "$work/last"
  [ -n "$dry" ] || rm -f "$root/$manifest" "$root/$manifest.yolojet-new"
  [ -z "$purge" ] || purge_data
  # A folder goes when it is empty: data and edited settings hold theirs.
  while read -r path; do
    [ -n "$dry" ] || rmdir "$root/$path" 2> /dev/null || true
  done < <(awk '$1 == "dir" { print $2 }' "$work/last" | sort -r)
  if [ -n "$live" ] && [ -z "$dry" ]; then
    systemctl daemon-reload
    systemctl reset-failed yolojet-detector.service yolojet-camera.service 2> /dev/null || true
    systemctl try-restart systemd-journald.service
    ! command -v udevadm > /dev/null || udevadm control --reload || true
  fi
  remove_user
}

# The user goes with its last file: else what stays would belong to nobody.
remove_user() {
  [ -n "$live" ] && id yolojet > /dev/null 2>&1 || return 0
  if [ -z "$dry" ]; then
    rm -rf /var/cache/yolojet
    rmdir /var/lib/yolojet/models /var/lib/yolojet/records /var/lib/yolojet /var/log/yolojet \
      2> /dev/null || true
    if [ -e /var/lib/yolojet ] || [ -e /var/log/yolojet ]; then
      say 'keep /var/lib/yolojet and /var/log/yolojet with their user; --purge removes them'
      return 0
    fi
  fi
  say 'remove the user yolojet'
  [ -n "$dry" ] || userdel yolojet
}

remove_file() {
  local target=$root/$1
  [ -n "$dry" ] || rm -f "$target.yolojet-new"
  [ -e "$target" ] || [ -L "$target" ] || return 0
  case $1 in
    etc/yolojet/*)
      if [ -z "$purge" ] && ! is_ours "$1"; then
        say "keep /$1, which was edited"
        return 0
      fi ;;
  esac
  say "remove /$1"
  [ -n "$dry" ] || rm -f "$target"
}

purge_data() {
  local folder
  for folder in etc/yolojet var/lib/yolojet var/cache/yolojet var/log/yolojet; do
    [ -e "$root/$folder" ] || continue
    say "remove /$folder"
    [ -n "$dry" ] || rm -rf "${root:-}/$folder"
  done
}

"do_$action"
