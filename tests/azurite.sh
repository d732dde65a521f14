#!/usr/bin/env bash
# Install Azurite, which tests of az:// start, below a directory; where there is no npm, they are skipped.
# usage: tests/azurite.sh DIR
set -euo pipefail
version=3.35.0 # the last for Node.js 20
mkdir -p "$1"
installed=$(sed -n 's/^  "version": "\(.*\)",$/\1/p' "$1/node_modules/azurite/package.json" 2>/dev/null || true)
if [ "$installed" = "$version" ]; then exit 0; fi
if ! command -v npm >/dev/null; then
  echo "npm is missing: the tests against Azurite will be skipped" >&2
  exit 0
fi
echo "installing azurite $version"
npm install --prefix "$1" --no-audit --no-fund --no-package-lock --silent "azurite@$version"
