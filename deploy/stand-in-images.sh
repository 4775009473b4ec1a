#!/usr/bin/env bash
# Builds images with the names of those that docker-compose.yml and deploy/Dockerfile use, from
# packages of Debian 12, for machines that reach a mirror of Debian and no registry of images.
#
# They are for tests: the versions are those of Debian, not those of the tags, and the entry points
# do only what docker-compose.yml needs. Grafana is not in Debian: its stand-in serves nothing and
# says so. The stand-in of Rust has no compiler: build with BINARIES=host (see deploy/Dockerfile).
#
# An image that exists is kept, whether it is a stand-in or not. Needs root, debootstrap and Docker.
# `stand-in-images.sh --remove` removes the stand-ins, and nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."

label=gridwatch.stand-in
if [ "${1:-}" = --remove ]; then
    docker images --quiet --filter "label=$label" | sort -u | xargs --no-run-if-empty docker rmi -f
    exit 0
fi

# The image of that name in the files that use it.
image() {
    cat docker-compose.yml deploy/Dockerfile | tr ' ' '\n' |
        awk -v pattern="^$1:[v0-9]" '$0 ~ pattern && !found++'
}
exists() {
    docker image inspect "$1" >/dev/null 2>&1
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The packages of every image have these below them.
base() {
    [ -d "$work/base" ] && return
    echo "stand-in-images: Debian 12"
    debootstrap --variant=minbase --include=ca-certificates,gosu bookworm "$work/base" \
        >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; exit 1; }
    printf '#!/bin/sh\nexit 101\n' >"$work/base/usr/sbin/policy-rc.d"
    chmod 755 "$work/base/usr/sbin/policy-rc.d"
    # The package of PostgreSQL must not create a database.
    mkdir -p "$work/base/etc/postgresql-common"
    echo 'create_main_cluster = false' >"$work/base/etc/postgresql-common/createcluster.conf"
    rm -rf "$work/base/var/cache/apt/archives/"*.deb
}

# stand_in IMAGE PACKAGES ENTRYPOINT [CHANGE…]: the packages on top of Debian, and the text of the
# entry point.
stand_in() {
    local image=$1 packages=$2 entrypoint=$3 root=$work/root
    shift 3
    if exists "$image"; then
        echo "stand-in-images: $image exists"
        return
    fi
    base
    echo "stand-in-images: $image: ${packages:-nothing else}"
    rm -rf "$root"
    cp -a "$work/base" "$root"
    if [ -n "$packages" ]; then
        # shellcheck disable=SC2086 # several words
        {
            chroot "$root" apt-get update -q
            DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get install -q -y \
                --no-install-recommends -o Dpkg::Options::=--force-confold $packages
            chroot "$root" apt-get clean
        } >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; exit 1; }
    fi
    printf '%s\n' "$entrypoint" >"$root/usr/local/bin/docker-entrypoint.sh"
    chmod 755 "$root/usr/local/bin/docker-entrypoint.sh"
    mkdir -p "$root/prometheus"
    chown 65534:65534 "$root/prometheus"
    local changes=(--change "LABEL $label=true"
        --change 'ENTRYPOINT ["docker-entrypoint.sh"]')
    local change
    for change in "$@"; do
        changes+=(--change "$change")
    done
    tar -C "$root" -c . | docker import "${changes[@]}" - "$image" >/dev/null
}

system_path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# shellcheck disable=SC2016 # for the shell in the image
stand_in "$(image rust)" "" '#!/bin/sh
exec "$@"' "ENV PATH=$system_path"

# shellcheck disable=SC2016
stand_in "$(image postgres)" postgresql '#!/bin/bash
set -e
if [ "$1" = postgres ] && [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA"
    chown -R postgres:postgres "$PGDATA"
    chmod 700 "$PGDATA"
    exec gosu postgres "$0" "$@"
fi
if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    export POSTGRES_USER=postgres
    initdb --username=postgres --pwfile="$POSTGRES_PASSWORD_FILE" --auth-host=scram-sha-256 \
        --encoding=UTF8 --locale=C.UTF-8
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    printf "listen_addresses = \\047*\\047\n" >>"$PGDATA/postgresql.conf"
    pg_ctl -w -o "-c listen_addresses=" start
    for script in /docker-entrypoint-initdb.d/*.sh; do "$script"; done
    pg_ctl -w -m fast stop
fi
exec "$@"' "ENV PATH=/usr/lib/postgresql/15/bin:$system_path" \
    'ENV PGDATA=/var/lib/postgresql/data' 'VOLUME /var/lib/postgresql/data' 'CMD ["postgres"]'

# shellcheck disable=SC2016
stand_in "$(image rabbitmq)" rabbitmq-server '#!/bin/bash
set -e
if [[ "$1" == rabbitmq* ]] && [ "$(id -u)" = 0 ]; then
    chown -R rabbitmq:rabbitmq /var/lib/rabbitmq
    exec gosu rabbitmq "$0" "$@"
fi
exec "$@"' "ENV PATH=/usr/lib/rabbitmq/bin:$system_path" 'ENV RABBITMQ_LOGS=-' \
    'ENV HOME=/var/lib/rabbitmq' 'VOLUME /var/lib/rabbitmq' 'CMD ["rabbitmq-server"]'

# shellcheck disable=SC2016
stand_in "$(image haproxy)" haproxy '#!/bin/sh
set -e
shift
exec haproxy -W -db "$@"' "ENV PATH=$system_path" 'USER haproxy' \
    'CMD ["haproxy", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]'

# shellcheck disable=SC2016
stand_in "$(image prom/prometheus)" "prometheus wget" '#!/bin/sh
exec prometheus "$@"' "ENV PATH=$system_path" 'USER nobody' 'VOLUME /prometheus' \
    'CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]'

# shellcheck disable=SC2016
stand_in "$(image grafana/grafana)" "" '#!/bin/sh
echo "This is a stand-in for Grafana. It serves nothing."
trap "exit 0" TERM
sleep infinity & wait' "ENV PATH=$system_path"
