//! Readings: those of any device, and of all devices of a station. From PostgreSQL.

use super::HALF;
use crate::dashboard::{Dashboard, Kind, MAX_ROWS, Panel, Variable};

/// Points of a panel, at most. Grafana asks for one per pixel.
const MAX_POINTS: u32 = 20_000;
/// Names in a choice, at most. The text before it narrows them.
const VARIABLES: [Variable; 5] = [
    Variable::Text {
        name: "find_device",
        label: "find a device",
        value: "",
    },
    Variable::Sql {
        name: "device",
        label: "device",
        query: "SELECT external_id FROM device WHERE deleted_at IS NULL \
                AND starts_with(external_id, ${find_device:sqlstring}) ORDER BY 1 LIMIT 500",
    },
    Variable::Sql {
        name: "metric",
        label: "metric",
        query: "SELECT metric FROM series JOIN device ON device.id = series.device_id \
                WHERE external_id = ${device:sqlstring} ORDER BY 1",
    },
    Variable::Text {
        name: "find_station",
        label: "find a station",
        value: "",
    },
    Variable::Sql {
        name: "station",
        label: "station",
        query: "SELECT name FROM component WHERE parent IS NULL \
                AND starts_with(name, ${find_station:sqlstring}) ORDER BY 1 LIMIT 500",
    },
];

/// The series of the selected metric at the devices of a station and of everything below it.
const STATION: &str = "WITH RECURSIVE part AS (
    SELECT id FROM component WHERE name = ${station:sqlstring} AND parent IS NULL
    UNION
    SELECT c.id FROM component c JOIN part ON c.parent = part.id
)
";

/// The beginning of the interval that a reading is in.
const BIN: &str = "date_bin(make_interval(secs => greatest($__interval_ms, 1000) / 1000.0), \
                   measured_at, '2000-01-01T00:00:00Z')";

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        uid: "gridwatch-readings",
        title: "Gridwatch: readings",
        description: "The readings of any device, and of all devices of a station.",
        from: "now-6h",
        refresh: "5m",
        variables: VARIABLES.to_vec(),
        panels: panels(),
    }
}

fn panels() -> Vec<Panel> {
    let wide = (24, 9);
    vec![
        Panel::new(
            "Device",
            Kind::SignedLines,
            "short",
            wide,
            "The mean of the readings of the device in each interval of the plot.",
        )
        .sql(format!(
            "SELECT {BIN} AS time, series.metric, avg(value) AS value
FROM device
JOIN series ON series.device_id = device.id
JOIN reading ON reading.series_id = series.id
WHERE external_id = ${{device:sqlstring}} AND series.metric = ${{metric:sqlstring}}
  AND $__timeFilter(measured_at)
GROUP BY 1, 2 ORDER BY 1 LIMIT {MAX_POINTS}"
        )),
        Panel::new(
            "Station",
            Kind::SignedLines,
            "short",
            wide,
            "The same metric of every device of the station.",
        )
        .sql(format!(
            "{STATION}SELECT {BIN} AS time, device.external_id AS metric, avg(value) AS value
FROM part
JOIN device ON device.component = part.id
JOIN series ON series.device_id = device.id AND series.metric = ${{metric:sqlstring}}
JOIN reading ON reading.series_id = series.id
WHERE $__timeFilter(measured_at)
GROUP BY 1, 2 ORDER BY 1 LIMIT {MAX_POINTS}"
        )),
        Panel::new(
            "Series of the device",
            Kind::Table,
            "short",
            HALF,
            "What the device measures, and its latest values in the selected time.",
        )
        .sql(format!(
            "SELECT series.metric, series.unit, r.measured_at AS latest, r.value
FROM device
JOIN series ON series.device_id = device.id
LEFT JOIN LATERAL (
    SELECT measured_at, value FROM reading
    WHERE series_id = series.id AND $__timeFilter(measured_at)
    ORDER BY measured_at DESC LIMIT 1
) r ON true
WHERE external_id = ${{device:sqlstring}} ORDER BY 1 LIMIT {MAX_ROWS}"
        )),
        Panel::new(
            "Devices of the station",
            Kind::Table,
            "short",
            HALF,
            "The devices at the station and at everything below it.",
        )
        .sql(format!(
            "{STATION}SELECT device.external_id AS device, device.name, component.name AS at,
       device.active
FROM part
JOIN component ON component.id = part.id
JOIN device ON device.component = part.id
ORDER BY 1 LIMIT {MAX_ROWS}"
        )),
    ]
}
