#!/usr/bin/env bash
# Runs once, when the database is created: a role for each user of it, with no more rights than it
# needs. The names of the roles are not configurable.
set -euo pipefail
password() {
    cat "/run/secrets/$1"
}
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
    -v gridwatch="$(password gridwatch-password)" \
    -v reader="$(password reader-password)" \
    -v replication="$(password replication-password)" <<'SQL'
-- Owns the tables: ingest-api, worker, query-api, migrate.
CREATE ROLE gridwatch LOGIN PASSWORD :'gridwatch';
CREATE DATABASE gridwatch OWNER gridwatch;
-- Grafana.
CREATE ROLE gridwatch_reader LOGIN PASSWORD :'reader';
GRANT pg_read_all_data, pg_monitor TO gridwatch_reader;
ALTER ROLE gridwatch_reader SET default_transaction_read_only = on;
ALTER ROLE gridwatch_reader SET statement_timeout = '30s';
-- The standby of the profile cluster.
CREATE ROLE gridwatch_standby REPLICATION LOGIN PASSWORD :'replication';
SQL
echo "host replication gridwatch_standby all scram-sha-256" >>"$PGDATA/pg_hba.conf"
