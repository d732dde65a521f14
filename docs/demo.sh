#!/usr/bin/env bash
# The main job in a minute, on a local directory: mount, back up through the path with tar, with restic and as a disk
# image, list the backups, copy one file out of each by mount, compare, unmount. Leaves nothing behind. `make demo` runs it.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
backgate=${BACKGATE:-$here/.venv/bin/backgate}
PATH=$PATH:/usr/sbin:/sbin # where Debian keeps sfdisk and mke2fs

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'; else bold='' dim='' green='' red='' plain=''; fi
step() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
note() { printf '%s%s%s\n' "$dim" "$*" "$plain"; }
say() { printf '%s\n' "$*"; }
run() { # shows a command without the long paths, then runs it
  local shown=${*//$work\//}
  printf '%s$ %s%s\n' "$dim" "${shown//$here\/.venv\/bin\//}" "$plain"
  "$@"
}

work=$(mktemp -d "${TMPDIR:-/tmp}/backgate-demo.XXXXXX")
mnt=$work/mnt
cleanup() {
  code=$?
  trap - EXIT INT TERM
  cd /
  if mountpoint -q "$mnt" 2>/dev/null; then "$backgate" umount --abort "$mnt" >/dev/null 2>&1 || fusermount3 -uzq "$mnt" || true; fi
  [ $code = 0 ] || printf '%sthe demo failed (exit code %s)%s\n' "$red" "$code" "$plain" >&2
  chmod -R u+rwX "$work" 2>/dev/null || true
  rm -rf "$work"
  exit $code
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

mkdir "$work/store" "$mnt" "$work/restored" "$work/run"
chmod 700 "$work/run"
export BACKGATE_CONFIG=$work/backgate.toml XDG_CACHE_HOME=$work/cache XDG_STATE_HOME=$work/state XDG_RUNTIME_DIR=$work/run
export RESTIC_PASSWORD_FILE=$work/restic-password RESTIC_CACHE_DIR=$work/restic-cache RESTIC_PROGRESS_FPS=0
(umask 077 && head -c 18 /dev/urandom | base64 >"$RESTIC_PASSWORD_FILE")
cat >"$BACKGATE_CONFIG" <<TOML
[repository.demo]
url = "file://$work/store"
secrets = { restic = "file:$RESTIC_PASSWORD_FILE" }
TOML

# What is backed up: a few hundred small files and one larger one.
home=$work/home
mkdir -p "$home/documents" "$home/photos"
for number in $(seq 1 200); do printf 'document %s\n' "$number" >"$home/documents/$number.txt"; done
head -c 20000000 /dev/urandom >"$home/photos/holiday.raw"
printf 'the one file that was deleted by mistake\n' >"$home/documents/contract.txt"
chmod 640 "$home/documents/contract.txt"
touch -d '2024-02-29 12:34:56 UTC' "$home/documents/contract.txt"

step "1. An object store becomes a path"
note "The store of this demo is a local directory; with s3://bucket in its place nothing else changes."
run cat "$BACKGATE_CONFIG"
run "$backgate" mount demo "$mnt"
run ls "$mnt"

step "2. Any backup tool writes to it"
cd "$work"
run tar -czf "$mnt/repository/monday.tar.gz" home
run restic -q -r "$mnt/repository/web" init
run restic -q -r "$mnt/repository/web" backup --host web01 home
note "The disk of a virtual machine: a partition table with one ext4 partition. No root and no loop device is needed."
sectors=$((48 * 2048 - 2048)) # of 512 bytes, behind the first MiB
truncate -s 48M disk.img
printf '2048,%s,L\n' "$sectors" | sfdisk -q disk.img
mke2fs -q -t ext4 -E offset=1048576 -d home disk.img $((sectors / 2))k
run cp disk.img "$mnt/repository/vm.img"
note "In the store these are plain objects, exactly as each tool made them:"
run ls store store/web

step "3. Every completed backup is a directory"
run "$backgate" backups demo
tar_file=$mnt/backups/tar/monday/home/documents/contract.txt
restic_file=$mnt/backups/restic/web/web01/latest/home/documents/contract.txt
partition=$(ls -d "$mnt"/backups/image/vm/partitions/1-*)
disk_file=$partition/documents/contract.txt
run ls -l "${tar_file#"$work"/}" "${restic_file#"$work"/}" "${disk_file#"$work"/}"

step "4. One file comes back, without restoring the rest"
run cp -p "$tar_file" "$work/restored/from-tar.txt"
run cp -p "$restic_file" "$work/restored/from-restic.txt"
run cp -p "$disk_file" "$work/restored/from-disk.txt"
for copy in from-tar from-restic from-disk; do
  cmp "$home/documents/contract.txt" "$work/restored/$copy.txt"
  [ "$(stat -c '%a %Y' "$home/documents/contract.txt")" = "$(stat -c '%a %Y' "$work/restored/$copy.txt")" ]
  say "${green}equal${plain}: restored/$copy.txt has the contents, mode and time of home/documents/contract.txt"
done
note "The larger file as well, out of the middle of the compressed archive:"
run cmp "$mnt/backups/tar/monday/home/photos/holiday.raw" "$home/photos/holiday.raw" && say "${green}equal${plain}"

step "5. The same without a mount, for containers and CI"
run "$backgate" umount "$mnt"
run "$backgate" cp -r "demo:backups/tar/monday/home/documents" "$work/restored"
diff -r "$home/documents" "$work/restored/documents" && say "${green}equal${plain}: all $(ls "$work/restored/documents" | wc -l) files"

step "Done"
say "Everything this demo made is removed again. Next: .venv/bin/backgate --help, and docs/restoring.md."
