-- The model: which components the grid has, where devices are attached, and who changed what. Only
-- device and series are needed by the pipeline; their new columns have defaults, so that a front
-- end registers a name exactly as before. store::model knows the names of the foreign keys: from
-- them it tells which field of a request refers to nothing.

CREATE FUNCTION gridwatch_time(timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN isfinite($1)
                THEN to_char($1 AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') END
$$;
COMMENT ON FUNCTION gridwatch_time IS 'RFC 3339 in UTC; null for an infinite time.';

CREATE TABLE customer (
    id         uuid PRIMARY KEY,
    name       text NOT NULL,
    attributes jsonb NOT NULL DEFAULT '{}',
    version    bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    updated_by text NOT NULL DEFAULT 'gridwatch'
);
CREATE INDEX customer_name ON customer (name, id);

CREATE TABLE catalog_type (
    id         uuid PRIMARY KEY,
    category   text NOT NULL,
    name       text NOT NULL,
    attributes jsonb NOT NULL DEFAULT '{}',
    version    bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    updated_by text NOT NULL DEFAULT 'gridwatch'
);
CREATE INDEX catalog_type_name ON catalog_type (name, id);
CREATE INDEX catalog_type_category ON catalog_type (category, id);

CREATE TABLE kind (
    name       text PRIMARY KEY,
    parents    jsonb NOT NULL DEFAULT '[]',
    attributes jsonb NOT NULL DEFAULT '{}',
    version    bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    updated_by text NOT NULL DEFAULT 'gridwatch'
);
COMMENT ON COLUMN kind.parents IS
    'Kinds of the possible parents: [{"kind", "min", "max"}], where min and max are how many '
    'children of this kind a parent has. Empty: a component of this kind is a root.';
COMMENT ON COLUMN kind.attributes IS 'JSON Schema of the attributes of a component.';

CREATE TABLE component (
    id         uuid PRIMARY KEY,
    kind       text NOT NULL REFERENCES kind,
    parent     uuid REFERENCES component,
    name       text NOT NULL,
    time_zone  text,
    latitude   double precision,
    longitude  double precision,
    attributes jsonb NOT NULL DEFAULT '{}',
    customer   uuid REFERENCES customer,
    version    bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    updated_by text NOT NULL DEFAULT 'gridwatch'
);
COMMENT ON COLUMN component.time_zone IS 'IANA name; null: that of the parent.';
CREATE INDEX component_name ON component (name, id);
CREATE INDEX component_updated_at ON component (updated_at, id);
CREATE INDEX component_kind ON component (kind, id);
CREATE INDEX component_parent ON component (parent, kind) WHERE parent IS NOT NULL;
CREATE INDEX component_customer ON component (customer) WHERE customer IS NOT NULL;
CREATE INDEX component_location ON component (latitude, longitude) WHERE latitude IS NOT NULL;

-- Every index on a new column of device is partial: a name that a front end registers is in none
-- of them.
ALTER TABLE device
    ADD COLUMN type uuid REFERENCES catalog_type,
    ADD COLUMN name text,
    ADD COLUMN component uuid REFERENCES component,
    ADD COLUMN latitude double precision,
    ADD COLUMN longitude double precision,
    ADD COLUMN specs jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN configuration jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN activation_date date,
    ADD COLUMN expected_interval double precision,
    ADD COLUMN version bigint NOT NULL DEFAULT 1,
    ADD COLUMN updated_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN updated_by text NOT NULL DEFAULT 'gridwatch',
    ADD COLUMN deleted_at timestamptz;
COMMENT ON COLUMN device.expected_interval IS 'Seconds between two readings of a series.';
COMMENT ON COLUMN device.deleted_at IS
    'A deleted device keeps its row under a name that no device can have, because front ends read '
    'changes of rows and would not notice that one is missing.';
CREATE INDEX device_component ON device (component) WHERE component IS NOT NULL;
CREATE INDEX device_type ON device (type) WHERE type IS NOT NULL;
CREATE INDEX device_location ON device (latitude, longitude) WHERE latitude IS NOT NULL;

ALTER TABLE series
    ADD COLUMN kind text NOT NULL DEFAULT 'gauge',
    ADD COLUMN rollover double precision,
    ADD COLUMN version bigint NOT NULL DEFAULT 1,
    ADD COLUMN updated_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN updated_by text NOT NULL DEFAULT 'gridwatch';
COMMENT ON COLUMN series.kind IS 'gauge, counter or interval.';
COMMENT ON COLUMN series.rollover IS 'The value at which a counter starts again from 0.';

CREATE TABLE target (
    series_id  integer NOT NULL REFERENCES series ON DELETE CASCADE,
    starts_at  timestamptz NOT NULL,
    value      double precision,
    version    bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    updated_by text NOT NULL DEFAULT 'gridwatch',
    PRIMARY KEY (series_id, starts_at)
);
COMMENT ON TABLE target IS
    'A step function: a value holds until the next one starts. Null: no target.';

-- Where a component or a device was attached, and when. The first placement holds for all earlier
-- times, so that readings from before the registration have a place too.
CREATE TABLE placement (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    component  uuid REFERENCES component ON DELETE CASCADE,
    device_id  integer REFERENCES device ON DELETE CASCADE,
    parent     uuid NOT NULL,
    valid_from timestamptz NOT NULL,
    valid_to   timestamptz NOT NULL DEFAULT 'infinity',
    CHECK ((component IS NULL) <> (device_id IS NULL))
);
CREATE INDEX placement_component ON placement (component) WHERE component IS NOT NULL;
CREATE INDEX placement_device ON placement (device_id) WHERE device_id IS NOT NULL;
CREATE INDEX placement_parent ON placement (parent);

CREATE FUNCTION gridwatch_place_component() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE placement SET valid_to = now() WHERE component = NEW.id AND valid_to = 'infinity';
    IF NEW.parent IS NOT NULL THEN
        INSERT INTO placement (component, parent, valid_from)
        SELECT NEW.id, NEW.parent,
               CASE WHEN EXISTS (SELECT FROM placement WHERE component = NEW.id)
                    THEN now() ELSE '-infinity' END;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER component_place AFTER INSERT ON component FOR EACH ROW
    WHEN (NEW.parent IS NOT NULL) EXECUTE FUNCTION gridwatch_place_component();
CREATE TRIGGER component_move AFTER UPDATE ON component FOR EACH ROW
    WHEN (NEW.parent IS DISTINCT FROM OLD.parent) EXECUTE FUNCTION gridwatch_place_component();

CREATE FUNCTION gridwatch_place_device() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE placement SET valid_to = now() WHERE device_id = NEW.id AND valid_to = 'infinity';
    IF NEW.component IS NOT NULL THEN
        INSERT INTO placement (device_id, parent, valid_from)
        SELECT NEW.id, NEW.component,
               CASE WHEN EXISTS (SELECT FROM placement WHERE device_id = NEW.id)
                    THEN now() ELSE '-infinity' END;
    END IF;
    RETURN NULL;
END $$;
-- The condition is checked before the trigger is queued: a device without a component costs
-- nothing.
CREATE TRIGGER device_place AFTER INSERT ON device FOR EACH ROW
    WHEN (NEW.component IS NOT NULL) EXECUTE FUNCTION gridwatch_place_device();
CREATE TRIGGER device_move AFTER UPDATE ON device FOR EACH ROW
    WHEN (NEW.component IS DISTINCT FROM OLD.component) EXECUTE FUNCTION gridwatch_place_device();

CREATE FUNCTION gridwatch_time_zone(component uuid) RETURNS text LANGUAGE sql STABLE AS $$
    WITH RECURSIVE path (parent, time_zone, depth) AS (
        SELECT c.parent, c.time_zone, 0 FROM component c WHERE c.id = $1
        UNION ALL
        SELECT c.parent, c.time_zone, depth + 1
        FROM path JOIN component c ON c.id = path.parent
        WHERE path.time_zone IS NULL AND depth < 64)
    SELECT time_zone FROM path WHERE time_zone IS NOT NULL
$$;
COMMENT ON FUNCTION gridwatch_time_zone IS
    'The time zone of a component, its own or that of the nearest ancestor with one; null: none.';

CREATE FUNCTION gridwatch_subtree(root uuid) RETURNS TABLE (component uuid)
LANGUAGE sql STABLE AS $$
    WITH RECURSIVE subtree (id) AS (
        SELECT $1 UNION SELECT c.id FROM subtree JOIN component c ON c.parent = subtree.id)
    SELECT id FROM subtree
$$;
COMMENT ON FUNCTION gridwatch_subtree(uuid) IS 'A component and all components below it, now.';

CREATE FUNCTION gridwatch_subtree(root uuid, at timestamptz) RETURNS TABLE (component uuid)
LANGUAGE sql STABLE AS $$
    WITH RECURSIVE subtree (id) AS (
        SELECT $1 UNION
        SELECT p.component FROM subtree JOIN placement p ON p.parent = subtree.id
        WHERE p.component IS NOT NULL AND p.valid_from <= $2 AND p.valid_to > $2)
    SELECT id FROM subtree
$$;
COMMENT ON FUNCTION gridwatch_subtree(uuid, timestamptz) IS
    'A component and all components that were below it at a time.';

CREATE TABLE change (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at        timestamptz NOT NULL DEFAULT now(),
    actor     text NOT NULL,
    entity    text NOT NULL,
    entity_id text NOT NULL,
    action    text NOT NULL,
    before    jsonb,
    after     jsonb
);
CREATE INDEX change_entity ON change (entity, entity_id, id);
CREATE INDEX change_at ON change (at);

CREATE TABLE idempotency (
    key        text PRIMARY KEY,
    request    bytea NOT NULL,
    response   jsonb,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN idempotency.request IS 'SHA-256 of the path and the body.';
CREATE INDEX idempotency_created_at ON idempotency (created_at);

CREATE TABLE job (
    id          uuid PRIMARY KEY,
    action      text NOT NULL,
    component   uuid,
    actor       text NOT NULL,
    state       text NOT NULL DEFAULT 'running',
    position    text NOT NULL DEFAULT '',
    components  bigint NOT NULL DEFAULT 0,
    devices     bigint NOT NULL DEFAULT 0,
    series      bigint NOT NULL DEFAULT 0,
    readings    bigint NOT NULL DEFAULT 0,
    error       text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);
CREATE INDEX job_running ON job (id) WHERE state = 'running';

-- Series that were deleted. A job deletes their readings. The rows stay, because the queue may have
-- readings of them: the worker makes those dead letters.
CREATE TABLE deleted_series (
    series_id  integer PRIMARY KEY,
    job        uuid,
    deleted_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX deleted_series_deleted_at ON deleted_series (deleted_at);
CREATE INDEX deleted_series_job ON deleted_series (job, series_id) WHERE job IS NOT NULL;

INSERT INTO kind (name, parents, attributes) VALUES
    ('station', '[]', '{"type": "object", "properties": {"address": {"type": "string"}}}'),
    ('transformer', '[{"kind": "station", "min": 1, "max": null}]', '{"type": "object"}'),
    ('distributor', '[{"kind": "transformer", "min": 1, "max": null}]', '{"type": "object"}'),
    ('feeder', '[{"kind": "distributor", "min": 1, "max": 20}]', '{"type": "object"}'),
    ('factory', '[]', '{"type": "object"}');
