#!/usr/bin/env bash
# Once, when the standby follows: from now on a commit waits until the standby has it on its disk.
set -euo pipefail
PGPASSWORD=$(cat /run/secrets/postgres-password)
export PGPASSWORD
psql -v ON_ERROR_STOP=1 -h postgres -U postgres \
    -c "ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (standby)'" \
    -c "SELECT pg_reload_conf()"
