#!/usr/bin/env bash
# Install the Debian packages that one purpose needs; asks for nothing when all are there.
# usage: tests/packages.sh run|demo|test|bench
set -euo pipefail
run="libfuse3-dev fuse3 gcc pkg-config libc6-dev python3-dev python3-venv ca-certificates"
disks="e2fsprogs xfsprogs fdisk gdisk dosfstools btrfs-progs ntfs-3g mtools exfatprogs cryptsetup-bin"
disks="$disks exfat-fuse squashfs-tools genisoimage qemu-utils" # what makes images of disks
tools="git gnupg libacl1-dev liblz4-dev libzstd-dev libxxhash-dev libssl-dev librsync-dev" # tests/tools.sh builds some
case $1 in
  run) want=$run ;;
  demo) want="restic tar e2fsprogs fdisk" ;;
  test) want="restic strace tar rsync zstd xz-utils bzip2 gzip attr acl s3fs sqlite3 radosgw ceph-mon ceph-osd postgresql libfaketime $disks $tools" ;;
  bench) want="restic s3fs" ;;
  *) echo "usage: $0 run|demo|test|bench" >&2; exit 2 ;;
esac
missing=()
for package in $want; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  as_root=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "please have an administrator run: apt-get install ${missing[*]}" >&2; exit 1; }
    as_root=(sudo)
  fi
  echo "installing Debian packages: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=600 "${missing[@]}" >/dev/null
fi
# A machine without udev leaves /dev/fuse closed to users; Debian's own rule opens it to all.
if [ -e /dev/fuse ] && [ "$(id -u)" = 0 ]; then chmod 666 /dev/fuse; fi
