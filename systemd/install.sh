#!/bin/sh
# Install the units and the mount helper for a `backgate` command that is installed already.
#
#   sudo systemd/install.sh [COMMAND]      COMMAND: /usr/bin/backgate, or where yours is
#
# DESTDIR=/tmp/root puts everything below that folder and leaves the running system alone (for packages).

set -eu

command=${1:-$(command -v backgate || true)}
here=$(cd "$(dirname "$0")" && pwd)
root=${DESTDIR:-}

if [ ! -x "$command" ]; then
	echo "install.sh: no backgate command: give its path, such as /usr/bin/backgate" >&2
	exit 2
fi
command=$(cd "$(dirname "$command")" && pwd)/$(basename "$command")

# The same path wherever it is run from: in the unit, and in the helper that mount(8) runs.
place() { # FILE FOLDER NAME MODE
	mkdir -p "$root$2"
	sed "s|/usr/bin/backgate|$command|g" "$here/$1" >"$root$2/$3"
	chmod "$4" "$root$2/$3"
	echo "installed $root$2/$3"
}

place backgate@.service /etc/systemd/system backgate@.service 644
place backgate-cache@.service /etc/systemd/system backgate-cache@.service 644
place backgate-cache@.timer /etc/systemd/system backgate-cache@.timer 644
place backgate.target /etc/systemd/system backgate.target 644
place backgate.sysusers /usr/lib/sysusers.d backgate.conf 644
place backgate.tmpfiles /usr/lib/tmpfiles.d backgate.conf 644
place mount.backgate /sbin mount.backgate 755

if [ -z "$root" ]; then
	systemd-sysusers backgate.conf
	systemd-tmpfiles --create backgate.conf
	if [ -d /run/systemd/system ]; then
		systemctl daemon-reload
	fi
	echo "now write /etc/backgate/backgate.toml and run: systemctl enable --now backgate.target backgate@NAME"
fi
