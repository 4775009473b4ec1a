-- What 'gridwatch import' has loaded. store::model::imports keeps the newest entries only.
CREATE TABLE import (
    id         uuid PRIMARY KEY,
    name       text NOT NULL,
    digest     text,
    kind       text NOT NULL,
    accepted   bigint NOT NULL,
    left_out   bigint NOT NULL,
    complete   boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    updated_by text NOT NULL
);
COMMENT ON COLUMN import.digest IS 'SHA-256 of the file, in hexadecimal digits.';
