#!/usr/bin/env bash
# Runs a command with Docker: with the one that runs, or with one of its own, which is stopped and
# removed afterwards, where Docker is installed and this user is root. Otherwise the command runs
# without it.
set -euo pipefail

docker info >/dev/null 2>&1 && exec "$@"
if [ "$(id -u)" -ne 0 ] || ! command -v dockerd >/dev/null 2>&1; then
    exec "$@"
fi
directory=$(mktemp -d "${TMPDIR:-/var/tmp}/gridwatch-docker.XXXXXX")
export DOCKER_HOST=unix://$directory/docker.sock
dockerd --host "$DOCKER_HOST" --data-root "$directory/data" --exec-root "$directory/exec" \
    --pidfile "$directory/docker.pid" >"$directory/log" 2>&1 &
daemon=$!
stop() {
    kill "$daemon" 2>/dev/null || true
    wait "$daemon" 2>/dev/null || true
    rm -rf "$directory"
}
trap stop EXIT
for _ in $(seq 60); do
    docker info >/dev/null 2>&1 && break
    kill -0 "$daemon" 2>/dev/null || break
    sleep 1
done
docker info >/dev/null 2>&1 ||
    { echo "with-docker: Docker does not start here:" >&2; tail -n 3 "$directory/log" >&2; }
"$@"
