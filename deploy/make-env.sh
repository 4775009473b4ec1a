#!/usr/bin/env bash
# Writes .env for docker-compose.yml, with random passwords, and the files of secrets that the
# containers read. What .env has stays: run it again after an update, or after changing .env.
# A new password in .env does not change the one that a server has stored in its volume.
#
#   deploy/make-env.sh          writes .env and deploy/secrets/
#   deploy/make-env.sh DIR      writes DIR/.env and DIR/secrets/, for a second deployment
set -euo pipefail
umask 077

root=$(cd "$(dirname "$0")/.." && pwd)
if [ $# -gt 1 ]; then
    echo "make-env: expected at most one directory" >&2
    exit 2
fi
if [ $# -eq 1 ]; then
    mkdir -p "$1"
    directory=$(cd "$1" && pwd)
    secrets=$directory/secrets
else
    directory=$root
    secrets=./deploy/secrets
fi
env=$directory/.env
touch "$env"
chmod 600 "$env"

# Adds a variable that .env does not have.
setting() {
    grep -q "^$1=" "$env" || printf '%s=%s\n' "$1" "$2" >>"$env"
}
# 192 random bits, in characters that are the same in a URL.
random() {
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}
value() {
    sed -n "s/^$1=//p" "$env" | head -n 1
}

[ -s "$env" ] ||
    echo "# Made by deploy/make-env.sh, which also writes the secrets again after a change." >>"$env"
setting COMPOSE_PROJECT_NAME gridwatch
# The services that 'docker compose up' starts without --profile.
setting COMPOSE_PROFILES default
setting GRIDWATCH_SECRETS "$secrets"
# Where the ports are published. There is no authentication: a proxy with it belongs in front of
# an address that others can reach.
setting GRIDWATCH_BIND 127.0.0.1
for password in POSTGRES GRIDWATCH READER REPLICATION RABBITMQ GRAFANA; do
    setting "${password}_PASSWORD" "$(random)"
done
setting RABBITMQ_COOKIE "$(random)"

# The files are mounted one by one, and each container reads them as its own user. The directory
# keeps other users of this machine out.
cd "$root"
mkdir -p "$secrets"
chmod 700 "$secrets"
secret() {
    printf '%s\n' "$2" >"$secrets/$1.new"
    chmod 444 "$secrets/$1.new"
    # A file that is mounted keeps its identity as long as its content is the same.
    if cmp -s "$secrets/$1.new" "$secrets/$1"; then
        rm -f "$secrets/$1.new"
    else
        mv -f "$secrets/$1.new" "$secrets/$1"
    fi
}
secret postgres-password "$(value POSTGRES_PASSWORD)"
secret gridwatch-password "$(value GRIDWATCH_PASSWORD)"
secret reader-password "$(value READER_PASSWORD)"
secret replication-password "$(value REPLICATION_PASSWORD)"
secret grafana-password "$(value GRAFANA_PASSWORD)"
secret rabbitmq-cookie "$(value RABBITMQ_COOKIE)"
secret rabbitmq-password.conf "default_pass = $(value RABBITMQ_PASSWORD)"
secret amqp-url "amqp://gridwatch:$(value RABBITMQ_PASSWORD)@broker:5672/gridwatch"
secret database-url "postgres://gridwatch:$(value GRIDWATCH_PASSWORD)@postgres:5432/gridwatch"
echo "make-env: $env and $secrets are complete"
