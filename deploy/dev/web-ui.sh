#!/usr/bin/env bash
# Builds the web UI into web-ui/dist, with its packages as locked and none of their scripts run.
set -euo pipefail
cd "$(dirname "$0")/../../web-ui"

# npm writes this file last: where it is newer, the packages are those of the lock file.
if [ ! node_modules/.package-lock.json -nt package-lock.json ]; then
  npm ci --ignore-scripts --no-audit --no-fund
fi
npm run build
