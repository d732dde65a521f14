#!/bin/bash
# Make lvm.tar.xz, md.tar.xz and luks.tar.xz: disks as the kernel's own device mapper and MD write them.
# usage: make_volumes.sh [lvm] [md] [luks]
# as root; needs user-mode-linux, kmod, lvm2, mdadm, cryptsetup-bin, python3, xz
# Every sector of a volume says which one it is ("raid5 0000000017"), so no manifest is needed.
# Started without a kernel of its own, it boots user-mode Linux on this machine's files and runs there.
set -u
here=$(dirname "$(realpath "$0")")
if [ $$ != 1 ]; then
  work=$(mktemp -d)
  cp "$0" "$work/make.sh" && chmod +x "$work/make.sh" && mkdir "$work/out"
  [ $# -gt 0 ] || set -- lvm md luks
  echo "$*" >"$work/kinds"
  timeout 600 linux.uml mem=512M rootfstype=hostfs root=/dev/root hostfs=/ rw init="$work/make.sh" \
    con=null con0=fd:0,fd:1 quiet </dev/null
  for kind in "$@"; do
    tar --sort=name --mtime=@0 --owner=0 --group=0 -S -C "$work/out" -cf - $(cd "$work/out" && ls $kind-*) |
      xz -6 >"$here/$kind.tar.xz"
  done
  rm -r "$work"
  exit
fi

cd "$here" # on the files of the machine outside; what is made goes to memory first, then there
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DM_DISABLE_UDEV=1 LVM_SYSTEM_DIR=/run/lvm
mount -n -t proc proc /proc
mount -n -t sysfs sys /sys
mount -n -t tmpfs tmp /run
mkdir -p /run/m/lib/modules /run/lock /run/lvm /run/out
ln -s "/usr/lib/uml/modules/$(uname -r)" /run/m/lib/modules/
for module in loop dm-mod dm-raid dm-mirror dm-thin-pool dm-snapshot dm-cache dm-cache-smq \
  md-mod raid0 raid1 raid10 raid456 linear aes_generic cbc ecb xts essiv sha1_generic sha256_generic \
  sha512_generic algif_skcipher encrypted-keys dm-crypt; do modprobe -d /run/m $module; done
cat >/run/lvm/lvm.conf <<'C'
activation { udev_sync=0 udev_rules=0 monitoring=0 }
devices { use_devicesfile=0 scan=["/dev"] obtain_device_list_from_udev=0 }
global { locking_dir="/run/lvm" event_activation=0 use_lvmpolld=0 }
backup { backup=0 archive=0 }
C

disk() { # NAME SIZE NUMBER: an empty disk at /dev/loopNUMBER
  truncate -s "$2" "/run/out/$1.raw" && losetup "/dev/loop$3" "/run/out/$1.raw"
}
write() { # NAME DEVICE FIRST:STOP...: sectors that name themselves; without a range all of them
  python3 - "$@" <<'P'
import os, sys
name, device, *ranges = sys.argv[1:]
file = os.open(device, os.O_WRONLY)
size = os.lseek(file, 0, os.SEEK_END) // 512
for first, stop in [map(int, one.split(":")) for one in ranges] or [(0, size)]:
    sectors = (f"{name} {number:010d}\n".encode().ljust(512, b".") for number in range(first, stop))
    os.pwrite(file, b"".join(sectors), first * 512)
os.fsync(file)
P
}

# --- LVM: a group over five disks, and another of the same name on a sixth -----------------------
make_lvm() {
disks=(/dev/loop1 /dev/loop2 /dev/loop3 /dev/loop4 /dev/loop5)
for number in 1 2 3 4 5; do disk lvm-$number $((number == 4 ? 48 : 16))M $number; done
pvcreate -q --dataalignment 64k --metadatasize 250k "${disks[@]}"
vgcreate -q -s 64k vg-one "${disks[@]}"
new() { lvcreate -q -y -Wn -Zn "$@"; }
new -L 1m -n linear vg-one ${disks[0]} && lvextend -q -L +1m vg-one/linear ${disks[2]}
new -i3 -I 16k -L 1536k -n striped vg-one
new --type mirror -m1 --mirrorlog core -L 512k -n mirror vg-one
new --type raid1 -m1 -L 512k -n raid1 vg-one
new --type raid0 -i2 -I 16k -L 512k -n raid0 vg-one
for kind in raid4 raid5 raid5_n; do new --type $kind -i2 -I 16k -L 512k -n $kind vg-one; done
for kind in raid6 raid6_nr raid6_nc raid6_ls_6; do new --type $kind -i3 -I 16k -L 768k -n $kind vg-one; done
new --type raid10 -i2 -m1 -I 16k -L 512k -n raid10 vg-one
new -L 1m -n cached vg-one ${disks[3]}
lvcreate -q -y --type cache-pool -L 1m -n fast vg-one ${disks[3]}
lvconvert -q -y --type cache --cachepool vg-one/fast --cachemode writethrough vg-one/cached
new -L 1m -n behind vg-one ${disks[3]}
lvcreate -q -y --type cache-pool -L 1m -n slow vg-one ${disks[3]}
lvconvert -q -y --type cache --cachepool vg-one/slow --cachemode writeback vg-one/behind
for name in linear striped mirror raid1 raid0 raid4 raid5 raid5_n raid6 raid6_nr raid6_nc raid6_ls_6 \
  raid10 cached; do write $name /dev/mapper/vg--one-$name; done
lvcreate -q -y -s -L 512k -n before vg-one/raid0 # and then change some chunks of both
write later /dev/mapper/vg--one-raid0 100:140
write own /dev/mapper/vg--one-before 500:508
lvcreate -q -y -Zn --type thin-pool -L 24m -c 64k --poolmetadatasize 2m -n pool vg-one
lvcreate -q -y -V 64m -T vg-one/pool -n thin
ranges=(0:300 1000:1100 8000:8192)
for chunk in $(seq 200 2 760); do ranges+=($((chunk * 128)):$((chunk * 128 + 1))); done # two levels of nodes
write thin /dev/mapper/vg--one-thin "${ranges[@]}"
lvcreate -q -y -s -n thinsnap vg-one/thin
write later /dev/mapper/vg--one-thin 100:140 4000:4040
lvcreate -q -y -V 1m -T vg-one/pool -n untouched
for name in raid1 raid4 raid5 raid5_n raid6 raid6_nr raid6_nc raid6_ls_6 raid10; do
  until lvs --noheadings -o sync_percent vg-one/$name | grep -q 100; do :; done
done
lvs -a -o name,segtype,devices,sync_percent
vgchange -q -an vg-one
for number in 1 2 3 4 5; do losetup -d /dev/loop$number; done
disk lvm-6 4M 6
pvcreate -q --dataalignment 64k --metadatasize 60k /dev/loop6
vgcreate -q -s 64k vg-one /dev/loop6
new -L 512k -n linear vg-one
write other /dev/mapper/vg--one-linear
vgchange -q -an vg-one
losetup -d /dev/loop6
}

# --- MD: one array of each kind; the members' names begin with that of the array -----------------
array() { # NAME MEMBERS mdadm's options...; UNEVEN=1: every second member larger
  local name=$1 count=$2 devices=() bitmap=--bitmap=none number
  shift 2
  for number in $(seq $count); do
    disk md-$name-$number $((2048 + number % 2 * 256 * ${UNEVEN:-0}))K $number
    devices+=(/dev/loop$number)
  done
  case "$*" in *level=0* | *linear*) bitmap= ;; esac
  mdadm -q --create /dev/md0 --run --force $bitmap --homehost=host --name=$name "$@" \
    --raid-devices=$count "${devices[@]}"
  mdadm --wait /dev/md0
  write $name /dev/md0
  ${THEN:-true}
  mdadm -q --stop /dev/md0
  for number in $(seq $count); do losetup -d /dev/loop$number; done
}
fail_one() { mdadm -q /dev/md0 --fail /dev/loop2 && write newer /dev/md0; }
make_md() {
array r1-090 2 --metadata=0.90 --level=1
array r1-10 2 --metadata=1.0 --level=1
THEN=fail_one array r1-stale 2 --metadata=1.2 --level=1
array r0-11 3 --metadata=1.1 --level=0 --chunk=16
UNEVEN=1 array r0-uneven 3 --metadata=1.2 --level=0 --chunk=16
UNEVEN=1 array linear 3 --metadata=1.2 --level=linear
array r10-n2 4 --metadata=1.2 --level=10 --layout=n2 --chunk=16
array r10-n2-odd 3 --metadata=1.2 --level=10 --layout=n2 --chunk=16
array r10-f2 4 --metadata=1.2 --level=10 --layout=f2 --chunk=16
array r10-o2 4 --metadata=1.2 --level=10 --layout=o2 --chunk=16
array r4 3 --metadata=1.2 --level=4 --chunk=16
for layout in left-symmetric left-asymmetric right-symmetric right-asymmetric parity-first parity-last; do
  array r5-$layout 4 --metadata=1.2 --level=5 --layout=$layout --chunk=16
  array r6-$layout 5 --metadata=1.2 --level=6 --layout=$layout --chunk=16
done
}

# --- LUKS: small ones, because what is encrypted does not compress ---------------------------------
encrypted() { # NAME SECTORS cryptsetup's options...; so many sectors of content
  local name=$1 sectors=$2
  shift 2
  disk luks-$name 4M 1
  printf 'one pass' | cryptsetup -q luksFormat --key-file - "$@" /dev/loop1
  printf 'one pass' | cryptsetup open --key-file - /dev/loop1 clear
  write $name /dev/mapper/clear 0:$sectors
  cryptsetup close clear
  losetup -d /dev/loop1
}
make_luks() {
mkdir -p /run/cryptsetup
small="--type luks2 --luks2-metadata-size 16k --luks2-keyslots-size 256k --offset 1024"
argon="--pbkdf-memory 8192 --pbkdf-force-iterations 4 --pbkdf-parallel 2"
encrypted xts-of-1 48 --type luks1 --pbkdf-force-iterations 1000 --key-size 256
encrypted essiv-of-1 48 --type luks1 --pbkdf-force-iterations 1000 --cipher aes-cbc-essiv:sha256 --key-size 128
encrypted small-sectors 48 $small --sector-size 512 --key-size 256 --cipher aes-xts-plain --pbkdf argon2i $argon
encrypted large-sectors 48 $small --sector-size 4096 --key-size 256 --pbkdf argon2id $argon
losetup /dev/loop1 /run/out/luks-large-sectors.raw
printf 'one pass' >/run/one && printf 'another' >/run/two
cryptsetup -q luksAddKey --key-file /run/one --pbkdf pbkdf2 --pbkdf-force-iterations 1000 /dev/loop1 /run/two
losetup -d /dev/loop1
python3 - <<'P' # keys that are not there are noise, which does not compress
import glob, json
for path in glob.glob("/run/out/luks-*.raw"):
    with open(path, "r+b") as file:
        head = file.read(32768)
        if head[7] == 1:
            used, end = 4096 + 4000 * int.from_bytes(head[108:112]), 512 * int.from_bytes(head[104:108])
        else:
            slots = json.loads(head[4096:16384].split(b"\0")[0])["keyslots"].values()
            used, end = max(int(s["area"]["offset"]) + int(s["area"]["size"]) for s in slots), 524288
        file.seek(used)
        file.write(bytes(end - used))
P
}

for kind in $(cat kinds); do make_$kind; done

cp --sparse=always /run/out/* out/
sync
halt -f -p
