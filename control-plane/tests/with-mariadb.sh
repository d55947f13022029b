#!/bin/sh
# Runs a command with a private MariaDB server at hand: with-mariadb.sh COMMAND [ARGUMENT..]
# The command finds it in PHLIX_TEST_MARIADB_URL and may make and drop databases in it. Socket only, in a folder of its own;
# both are gone afterwards. A server that is already named in PHLIX_TEST_MARIADB_URL is used as it is.
set -eu

if [ -n "${PHLIX_TEST_MARIADB_URL:-}" ]; then
    exec "$@"
fi

PATH="$PATH:/usr/sbin"
for tool in mariadb-install-db mariadbd; do
    if ! command -v "$tool" >/dev/null; then
        echo "with-mariadb.sh: $tool is missing; install the package mariadb-server" >&2
        exit 69
    fi
done

# A short path: a socket's name may have 107 bytes.
folder=$(mktemp -d /tmp/phlix-db.XXXXXX)
server=
finish() {
    if [ -n "$server" ]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$folder"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

user=$(id -un)
mariadb-install-db --no-defaults --datadir="$folder/data" --auth-root-authentication-method=normal \
    --skip-test-db --user="$user" >"$folder/install.log" 2>&1 || { cat "$folder/install.log" >&2; exit 70; }

# Durability costs half of the run and proves nothing here.
mariadbd --no-defaults --datadir="$folder/data" --socket="$folder/s.sock" --pid-file="$folder/pid" --skip-networking \
    --user="$user" --skip-log-bin --performance-schema=OFF --max-connections=1000 \
    --innodb-flush-log-at-trx-commit=0 --innodb-buffer-pool-size=64M \
    </dev/null >"$folder/server.log" 2>&1 &
server=$!

tries=0
until mariadb-admin --no-defaults --socket="$folder/s.sock" --user=root ping >/dev/null 2>&1; do
    tries=$((tries + 1))
    if [ "$tries" -gt 600 ] || ! kill -0 "$server" 2>/dev/null; then
        cat "$folder/server.log" >&2
        exit 70
    fi
    sleep 0.05
done

PHLIX_TEST_MARIADB_URL="mysql://root@localhost/?socket=$folder/s.sock"
export PHLIX_TEST_MARIADB_URL
"$@"
