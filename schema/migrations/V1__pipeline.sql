-- What the pipeline needs: who may report (device, series), what was reported (reading), which batches were stored and
-- when (batch), and what could not be stored as it came (conflict, dead_letter).

CREATE TABLE device (
    id          integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    external_id text NOT NULL UNIQUE CHECK (octet_length(external_id) BETWEEN 1 AND 256),
    active      boolean NOT NULL DEFAULT true,
    created_at  timestamptz NOT NULL DEFAULT now(),
    changed_in  xid8 NOT NULL DEFAULT pg_current_xact_id()
);
COMMENT ON COLUMN device.external_id IS 'What the device says of itself on the wire.';
COMMENT ON COLUMN device.changed_in IS 'The transaction that wrote the row last: how front ends find what is new.';

CREATE TABLE series (
    id         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device_id  integer NOT NULL REFERENCES device,
    metric     text NOT NULL CHECK (octet_length(metric) BETWEEN 1 AND 128),
    unit       text,
    created_at timestamptz NOT NULL DEFAULT now(),
    changed_in xid8 NOT NULL DEFAULT pg_current_xact_id(),
    UNIQUE (device_id, metric)
);

CREATE INDEX device_changed_in ON device (changed_in);
CREATE INDEX series_changed_in ON series (changed_in);

CREATE FUNCTION gridwatch_touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed_in := pg_current_xact_id();
    RETURN NEW;
END $$;
CREATE TRIGGER device_touch BEFORE UPDATE ON device FOR EACH ROW EXECUTE FUNCTION gridwatch_touch();
CREATE TRIGGER series_touch BEFORE UPDATE ON series FOR EACH ROW EXECUTE FUNCTION gridwatch_touch();

-- No foreign key to series: checking it would cost every reading a look-up, and only the registry hands out ids.
CREATE TABLE reading (
    series_id   integer NOT NULL,
    measured_at timestamptz NOT NULL,
    value       double precision NOT NULL,
    PRIMARY KEY (series_id, measured_at)
) PARTITION BY RANGE (measured_at);

CREATE TABLE reading_before_2000 PARTITION OF reading
    FOR VALUES FROM (MINVALUE) TO ('2000-01-01 00:00:00+00');

-- The ledger: one row a batch, inserted in the transaction that stores its readings. It makes the effect of a batch
-- happen once, and it keeps the clocks, so that latency is also a question in SQL.
CREATE TABLE batch (
    id              uuid PRIMARY KEY,
    readings        integer NOT NULL,
    stored          integer NOT NULL,
    duplicates      integer NOT NULL,
    conflicts       integer NOT NULL,
    dead_letters    integer NOT NULL,
    first_measured  timestamptz NOT NULL,
    last_measured   timestamptz NOT NULL,
    first_received  timestamptz NOT NULL,
    last_received   timestamptz NOT NULL,
    enqueued_at     timestamptz NOT NULL,
    dequeued_at     timestamptz NOT NULL,
    persisted_at    timestamptz,
    CHECK (readings = stored + duplicates + conflicts + dead_letters)
);
COMMENT ON COLUMN batch.persisted_at IS 'Taken as the last thing before the commit.';

CREATE TABLE conflict (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    series_id     integer NOT NULL,
    measured_at   timestamptz NOT NULL,
    stored_value  double precision NOT NULL,
    offered_value double precision NOT NULL,
    batch_id      uuid NOT NULL,
    seen_at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX conflict_key ON conflict (series_id, measured_at);

-- A reading is kept here whole. A message that is no batch is kept whole in the dead-letter queue; its row here says why.
CREATE TABLE dead_letter (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code             text NOT NULL,
    detail           text NOT NULL,
    batch_id         uuid,
    series_id        integer,
    measured_at_us   bigint,
    value            double precision,
    message_sha256   bytea UNIQUE,
    dead_lettered_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((message_sha256 IS NULL) <> (batch_id IS NULL))
);
COMMENT ON COLUMN dead_letter.measured_at_us IS 'Microseconds since 1970, because a refused time may fit no timestamp.';

-- The days that have a partition of their own.
CREATE FUNCTION gridwatch_reading_days() RETURNS TABLE (day date) LANGUAGE sql STABLE AS $$
    SELECT to_date(substring(child.relname FROM '^reading_(\d{8})$'), 'YYYYMMDD')
    FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
    WHERE inhparent = 'reading'::regclass AND child.relname ~ '^reading_\d{8}$'
$$;

-- CREATE TABLE … PARTITION OF would lock everyone out of the whole table for a moment; ATTACH PARTITION does not. The
-- advisory lock makes two workers that miss the same day take turns.
CREATE FUNCTION gridwatch_create_reading_day(day date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    partition text := 'reading_' || to_char(day, 'YYYYMMDD');
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('gridwatch.partition'));
    IF to_regclass(partition) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE reading INCLUDING ALL)', partition);
    EXECUTE format(
        'ALTER TABLE reading ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', partition,
        to_char(day, 'YYYY-MM-DD') || ' 00:00:00+00', to_char(day + 1, 'YYYY-MM-DD') || ' 00:00:00+00');
END $$;
