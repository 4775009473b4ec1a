-- Deletions and moves while something else happens at the same time: a job deletes what was there
-- when it was accepted, jobs take turns, and placements never overlap.

ALTER TABLE job
    ADD COLUMN cut xid8,
    ADD COLUMN waits_for text[],
    ADD COLUMN failures integer NOT NULL DEFAULT 0,
    ADD COLUMN due_at timestamptz NOT NULL DEFAULT now();
COMMENT ON COLUMN job.cut IS
    'A range is deleted up to this transaction: what later ones stored is kept.';
COMMENT ON COLUMN job.waits_for IS
    'Transactions of workers that may not have seen that the series were deleted. Null: the job '
    'has not looked yet.';
COMMENT ON COLUMN job.failures IS 'Slices that failed since the last one that succeeded.';
COMMENT ON COLUMN job.due_at IS 'The job whose time is the earliest one comes next.';
UPDATE job SET cut = pg_snapshot_xmax(pg_current_snapshot()) WHERE action = 'delete_readings';
DROP INDEX job_running;
CREATE INDEX job_due ON job (due_at) WHERE state = 'running';

-- The history of a deleted component is kept: devices that had been below it belong to the tree of
-- that time. Its last placement ends.
ALTER TABLE placement DROP CONSTRAINT placement_component_fkey;

CREATE FUNCTION gridwatch_end_component() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE placement
    SET valid_to = greatest(valid_from + interval '1 microsecond', clock_timestamp())
    WHERE component = OLD.id AND valid_to = 'infinity';
    RETURN NULL;
END $$;
CREATE TRIGGER component_end AFTER DELETE ON component FOR EACH ROW
    WHEN (OLD.parent IS NOT NULL) EXECUTE FUNCTION gridwatch_end_component();

-- A placement begins where the one before it ends, or later. The row of the component or of the
-- device is locked here, so that the time is that of the move, and not that of the beginning of a
-- transaction that may have waited for another move. A clock that went back counts as standing
-- still.
CREATE OR REPLACE FUNCTION gridwatch_place_component() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    moved timestamptz;
BEGIN
    SELECT greatest(clock_timestamp(), max(
        CASE valid_to WHEN 'infinity' THEN valid_from + interval '1 microsecond' ELSE valid_to END))
    INTO moved FROM placement WHERE component = NEW.id HAVING count(*) > 0;
    UPDATE placement SET valid_to = moved WHERE component = NEW.id AND valid_to = 'infinity';
    IF NEW.parent IS NOT NULL THEN
        INSERT INTO placement (component, parent, valid_from)
        VALUES (NEW.id, NEW.parent, coalesce(moved, '-infinity'));
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION gridwatch_place_device() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    moved timestamptz;
BEGIN
    SELECT greatest(clock_timestamp(), max(
        CASE valid_to WHEN 'infinity' THEN valid_from + interval '1 microsecond' ELSE valid_to END))
    INTO moved FROM placement WHERE device_id = NEW.id HAVING count(*) > 0;
    UPDATE placement SET valid_to = moved WHERE device_id = NEW.id AND valid_to = 'infinity';
    IF NEW.component IS NOT NULL THEN
        INSERT INTO placement (device_id, parent, valid_from)
        VALUES (NEW.id, NEW.component, coalesce(moved, '-infinity'));
    END IF;
    RETURN NULL;
END $$;

-- Placements that overlap, which moves at the same time could leave, end where the next one begins.
UPDATE placement SET valid_to = following.valid_from
FROM (SELECT id, lead(valid_from) OVER (PARTITION BY component, device_id
                                        ORDER BY valid_from, id) AS valid_from
      FROM placement) AS following
WHERE following.id = placement.id AND following.valid_from < placement.valid_to;
DELETE FROM placement WHERE valid_to <= valid_from;
ALTER TABLE placement ADD CONSTRAINT placement_range CHECK (valid_from < valid_to);
CREATE UNIQUE INDEX placement_open_component ON placement (component)
    WHERE component IS NOT NULL AND valid_to = 'infinity';
CREATE UNIQUE INDEX placement_open_device ON placement (device_id)
    WHERE device_id IS NOT NULL AND valid_to = 'infinity';
