#!/usr/bin/env bash
# Starts a node with the cookie of the cluster, which must be a file of the server's own user.
set -euo pipefail
home=/var/lib/rabbitmq
install -o rabbitmq -g rabbitmq -m 400 /run/secrets/rabbitmq-cookie "$home/.erlang.cookie"
exec docker-entrypoint.sh rabbitmq-server
