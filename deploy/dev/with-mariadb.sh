#!/usr/bin/env bash
# Runs a command beside a private MariaDB that lives and dies with it.
#
#   with-mariadb.sh COMMAND...
#
# The server listens on a socket in a folder of its own, on no port, and has nothing to do with a
# MariaDB of the machine. The command finds it in PHLIX_TEST_MARIADB, a URL without a database: each
# test makes its own.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

if [ -n "${PHLIX_TEST_MARIADB:-}" ]; then
  exec "$@"
fi

# Short, since the path of a socket has at most 107 bytes.
home=$(mktemp -d /tmp/phlix-db.XXXXXX)
server=
finish() {
  [ -z "$server" ] || { kill -9 "$server" && wait "$server"; } 2>/dev/null || true
  rm -rf "$home"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

mariadb-install-db --no-defaults --datadir="$home/data" --auth-root-authentication-method=normal \
  --skip-test-db --user="$(id -un)" >"$home/install.log" 2>&1 </dev/null \
  || { cat "$home/install.log" >&2; exit 1; }
# Tests ask for speed: nothing here has to survive a power cut.
mariadbd --no-defaults --datadir="$home/data" --socket="$home/s.sock" --pid-file="$home/pid" \
  --skip-networking --user="$(id -un)" --skip-log-bin --performance-schema=OFF \
  --innodb-flush-log-at-trx-commit=0 --max-connections=500 \
  >"$home/server.log" 2>&1 </dev/null &
server=$!
for _ in $(seq 1 300); do
  mariadb-admin --no-defaults --socket="$home/s.sock" --user=root ping >/dev/null 2>&1 && break
  kill -0 "$server" 2>/dev/null || { cat "$home/server.log" >&2; exit 1; }
  sleep 0.1
done
mariadb-admin --no-defaults --socket="$home/s.sock" --user=root ping >/dev/null \
  || { cat "$home/server.log" >&2; exit 1; }

export PHLIX_TEST_MARIADB="mysql://root@localhost/?socket=$home/s.sock"
"$@"
