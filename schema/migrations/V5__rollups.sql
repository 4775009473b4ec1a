-- Roll-ups: summaries of the readings of a series in a quarter of an hour and in a local day, so
-- that a query for a long range need not read each reading.
--
-- A day of UTC is closed some time after its end. A transaction that changes readings of a closed
-- day also writes a mark for the series and the day. Roll-ups of a series and a day are valid
-- if there is no mark of them; a background task builds them again and removes the marks. A series
-- or a day without roll-ups is read from its readings.

CREATE TABLE rollup_day (
    day         date PRIMARY KEY,
    settled_in  xid8,
    next_series integer NOT NULL DEFAULT 0,
    built_at    timestamptz
);
COMMENT ON TABLE rollup_day IS 'The closed days of UTC.';
COMMENT ON COLUMN rollup_day.settled_in IS
    'A transaction that began after the day was closed for everyone. When all transactions before '
    'it have ended, every change of the day either is committed or writes a mark.';
COMMENT ON COLUMN rollup_day.next_series IS 'Roll-ups of the series below this one are built.';
CREATE INDEX rollup_day_unbuilt ON rollup_day (day) WHERE built_at IS NULL;

CREATE TABLE rollup_mark (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    series_id integer NOT NULL,
    day       date NOT NULL
);
COMMENT ON TABLE rollup_mark IS 'Readings of a series were changed on a closed day of UTC.';
CREATE INDEX rollup_mark_key ON rollup_mark (series_id, day);

-- One process at a time builds roll-ups.
CREATE TABLE rollup_lease (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    holder     uuid,
    expires_at timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO rollup_lease DEFAULT VALUES;

CREATE TABLE rollup_quarter_hour (
    series_id integer NOT NULL,
    starts_at timestamptz NOT NULL,
    count     bigint NOT NULL,
    min       double precision NOT NULL,
    max       double precision NOT NULL,
    sum       double precision NOT NULL,
    first     double precision NOT NULL,
    first_at  timestamptz NOT NULL,
    last      double precision NOT NULL,
    last_at   timestamptz NOT NULL,
    weighted  double precision NOT NULL,
    increase  double precision NOT NULL,
    PRIMARY KEY (series_id, starts_at)
);
COMMENT ON COLUMN rollup_quarter_hour.weighted IS
    'Sum of each value times the microseconds until the next reading, from the first to the last.';
COMMENT ON COLUMN rollup_quarter_hour.increase IS
    'Increase of a counter from the first reading to the last.';

CREATE TABLE rollup_local_day (
    series_id integer NOT NULL,
    time_zone text NOT NULL,
    day       date NOT NULL,
    count     bigint NOT NULL,
    min       double precision NOT NULL,
    max       double precision NOT NULL,
    sum       double precision NOT NULL,
    first     double precision NOT NULL,
    first_at  timestamptz NOT NULL,
    last      double precision NOT NULL,
    last_at   timestamptz NOT NULL,
    weighted  double precision NOT NULL,
    increase  double precision NOT NULL,
    q1        double precision NOT NULL,
    median    double precision NOT NULL,
    q3        double precision NOT NULL,
    PRIMARY KEY (series_id, time_zone, day)
);

CREATE FUNCTION gridwatch_mark_rollups(series_id integer, first date, last date) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO rollup_mark (series_id, day)
    SELECT $1, day FROM rollup_day WHERE day BETWEEN $2 AND $3
$$;
COMMENT ON FUNCTION gridwatch_mark_rollups IS
    'Call this after changing readings by hand, in the same transaction, with their days of UTC.';

-- The increase of a counter depends on it.
CREATE FUNCTION gridwatch_mark_series() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM gridwatch_mark_rollups(NEW.id, '-infinity', 'infinity');
    RETURN NULL;
END $$;
CREATE TRIGGER series_mark_rollups AFTER UPDATE ON series FOR EACH ROW
    WHEN (NEW.rollover IS DISTINCT FROM OLD.rollover) EXECUTE FUNCTION gridwatch_mark_series();

-- The roll-ups of a deleted series are deleted later.
ALTER TABLE deleted_series ADD COLUMN rollups_deleted boolean NOT NULL DEFAULT false;
CREATE INDEX deleted_series_rollups ON deleted_series (series_id) WHERE NOT rollups_deleted;

-- For people and reports: the exact five numbers of each day of UTC, from the readings.
CREATE VIEW daily AS
SELECT device.external_id AS device,
       series.metric,
       series.unit,
       (reading.measured_at AT TIME ZONE 'UTC')::date AS day,
       count(*) AS count,
       min(reading.value) AS min,
       percentile_cont(0.25) WITHIN GROUP (ORDER BY reading.value) AS q1,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY reading.value) AS median,
       percentile_cont(0.75) WITHIN GROUP (ORDER BY reading.value) AS q3,
       max(reading.value) AS max
FROM device
JOIN series ON series.device_id = device.id
JOIN reading ON reading.series_id = series.id
GROUP BY device.external_id, series.metric, series.unit,
         (reading.measured_at AT TIME ZONE 'UTC')::date;
COMMENT ON VIEW daily IS
    'The five numbers of each series and day of UTC. A condition on day does not exclude '
    'partitions: name the device and the metric.';
