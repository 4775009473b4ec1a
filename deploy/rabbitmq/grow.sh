#!/usr/bin/env bash
# Once, when the three nodes are one cluster: queues that were declared before get a member on each
# of them. Queues that are declared later have one.
set -euo pipefail
install -m 400 /run/secrets/rabbitmq-cookie /var/lib/rabbitmq/.erlang.cookie
export HOME=/var/lib/rabbitmq
for node in rabbit@rabbitmq-2 rabbit@rabbitmq-3; do
    rabbitmq-queues --node rabbit@rabbitmq grow "$node" all
done
