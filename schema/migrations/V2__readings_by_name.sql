-- The readings with their names, for people and reports. The pipeline does not use it.
--
-- A query for one device and one metric finds the series by its unique key, and its readings by the
-- primary key of each partition. A condition on measured_at excludes partitions.

CREATE VIEW readings_by_name AS
SELECT device.external_id AS device,
       series.metric,
       series.unit,
       reading.measured_at,
       reading.value
FROM device
JOIN series ON series.device_id = device.id
JOIN reading ON reading.series_id = series.id;

COMMENT ON VIEW readings_by_name IS 'Each reading with its device, its metric and its unit.';
