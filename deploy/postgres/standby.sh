#!/usr/bin/env bash
# A standby of the server postgres: copies its data at the first start, then follows it.
set -euo pipefail
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA"
    chown -R postgres:postgres "$PGDATA"
    chmod 700 "$PGDATA"
    exec gosu postgres "$0" "$@"
fi
# The password is in a file of this user's own, which the settings of the standby name.
passfile=/tmp/pgpass
(umask 077 && printf 'postgres:5432:*:gridwatch_standby:%s\n' \
    "$(cat /run/secrets/replication-password)" >"$passfile")
export PGPASSFILE=$passfile
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    # The slot keeps what the standby lacks. It exists if an earlier copy was interrupted.
    source="host=postgres user=gridwatch_standby application_name=standby passfile=$passfile"
    find "$PGDATA" -mindepth 1 -delete
    pg_basebackup --dbname "$source" --pgdata "$PGDATA" --checkpoint fast --wal-method stream \
        --create-slot --slot standby --write-recovery-conf || {
        find "$PGDATA" -mindepth 1 -delete
        pg_basebackup --dbname "$source" --pgdata "$PGDATA" --checkpoint fast \
            --wal-method stream --slot standby --write-recovery-conf
    }
fi
exec postgres "$@"
