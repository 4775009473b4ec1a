//! The readings that are asked for, and the process that responds.

use std::time::Duration;

use testbed::postgres::connect;
use testbed::process::Process;
use tokio_postgres::Client;

use crate::Arguments;
use crate::common::{free_address, migrate};
use crate::servers::Servers;

/// The name of the database.
pub(crate) const NAME: &str = "reads";
/// Days before today whose readings have roll-ups.
const DAYS_AGO: i32 = 3;
/// The component that the devices of the station belong to.
pub(crate) const STATION: &str = "00000000-0000-7000-8000-000000000001";
/// Devices of the station.
pub(crate) const STATION_DEVICES: i32 = 10;

/// Values that a meter may have: two decimals, and not in the order of time.
const VALUE: &str = "round((230 + 10 * sin(n * 0.7))::numeric, 2)::float8";

/// A database with readings, and `gridwatch query-api` on it.
pub(crate) struct Dataset {
    pub url: String,
    pub database: Client,
    pub api: Process,
    /// Where it responds.
    pub address: String,
    /// A day whose roll-ups are built, and the date after it.
    pub closed: [String; 2],
    /// A day that has not ended, with the same readings, and the date after it.
    pub open: [String; 2],
}

impl Dataset {
    /// Creates everything, and waits until the roll-ups are built.
    pub(crate) async fn create(servers: &Servers, arguments: &Arguments) -> anyhow::Result<Self> {
        println!("loading readings");
        let server = connect(&servers.url("postgres")).await?;
        let create = format!("CREATE DATABASE {NAME}");
        server.batch_execute(&create).await?;
        let url = servers.url(NAME);
        migrate(&servers.program, &url)?;
        let database = connect(&url).await?;
        let date = "SELECT to_char((now() AT TIME ZONE 'UTC')::date + n, 'YYYY-MM-DD')
                    FROM generate_series($1::integer, $1 + 1) n";
        let mut days = Vec::new();
        for first in [-DAYS_AGO, 1] {
            let rows = database.query(date, &[&first]).await?;
            days.push([rows[0].get(0), rows[1].get(0)]);
        }
        let [closed, open]: [[String; 2]; 2] = days.try_into().unwrap_or_default();
        let address = free_address()?;
        let admin = free_address()?;
        load(&database, arguments, [&closed[0], &open[0]]).await?;
        let command = ["query-api", "--listen", &address, "--admin", &admin];
        let command = [&command[..], &["--database-url", &url]].concat();
        let mut api = Process::start(&servers.program, &command, &admin, servers.logs())?;
        api.wait_ready();
        let dataset = Self {
            url,
            database,
            api,
            address,
            closed,
            open,
        };
        dataset.wait_built().await?;
        Ok(dataset)
    }

    /// Waits until every closed day is built.
    async fn wait_built(&self) -> anyhow::Result<()> {
        let started = std::time::Instant::now();
        let built = "SELECT count(*) > 0 AND bool_and(built_at IS NOT NULL) FROM rollup_day";
        while !self.database.query_one(built, &[]).await?.get::<_, bool>(0) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!(
            "roll-ups are built, {:.1} s",
            started.elapsed().as_secs_f64()
        );
        self.database.batch_execute("VACUUM ANALYZE").await?;
        Ok(())
    }
}

async fn load(database: &Client, arguments: &Arguments, days: [&str; 2]) -> anyhow::Result<()> {
    let Arguments {
        devices,
        year_interval,
        year_days,
        ..
    } = arguments;
    let [closed, open] = days;
    // Devices of the fleet report their latest reading within the last minute.
    let statements = [
        format!(
            "INSERT INTO component (id, kind, name) VALUES ('{STATION}', 'station', 'station');
             INSERT INTO device (external_id, component, expected_interval)
             SELECT 'station-' || n, '{STATION}', 1 FROM generate_series(1, {STATION_DEVICES}) n;
             INSERT INTO device (external_id) VALUES ('year-900'), ('year-fine'), ('export');
             INSERT INTO series (device_id, metric, unit)
             SELECT id, 'power', 'W' FROM device ORDER BY id;"
        ),
        format!(
            "SELECT gridwatch_create_reading_day(day::date) FROM generate_series(
                 date '{closed}' - {year_days}, date '{open}', '1 day') day"
        ),
        format!(
            "INSERT INTO reading (series_id, measured_at, value)
             SELECT s.id, day + n * interval '1 second', {VALUE}
             FROM series s JOIN device d ON d.id = s.device_id,
                  (VALUES (timestamptz '{closed} 00:00Z'), (timestamptz '{open} 00:00Z')) d2 (day),
                  generate_series(0, 86399) n
             WHERE d.external_id LIKE 'station-%' ORDER BY s.id, day, n"
        ),
        year(closed, "year-900", 900, *year_days),
        year(closed, "year-fine", *year_interval, *year_days),
        format!(
            "INSERT INTO device (external_id)
             SELECT 'fleet-' || to_char(n, 'FM0000000') FROM generate_series(1, {devices}) n;
             INSERT INTO series (device_id, metric, unit)
             SELECT id, 'power', 'W' FROM device WHERE external_id LIKE 'fleet-%' ORDER BY id;
             SELECT gridwatch_create_reading_day((now() AT TIME ZONE 'UTC')::date);
             SELECT gridwatch_create_reading_day((now() AT TIME ZONE 'UTC')::date - 1);
             INSERT INTO reading (series_id, measured_at, value)
             SELECT s.id, now() - n * interval '1 minute' - s.id % 60 * interval '1 second', {VALUE}
             FROM series s JOIN device d ON d.id = s.device_id, generate_series(0, 4) n
             WHERE d.external_id LIKE 'fleet-%' ORDER BY s.id"
        ),
    ];
    for statement in statements {
        database.batch_execute(&statement).await?;
    }
    Ok(database.batch_execute("VACUUM ANALYZE").await?)
}

/// The readings of a device in the days before one.
fn year(before: &str, device: &str, interval: u32, days: u32) -> String {
    format!(
        "INSERT INTO reading (series_id, measured_at, value)
         SELECT s.id, timestamptz '{before} 00:00Z' - interval '{days} days'
                      + n * interval '{interval} seconds', {VALUE}
         FROM series s JOIN device d ON d.id = s.device_id,
              generate_series(0, {days} * 86400 / {interval} - 1) n
         WHERE d.external_id = '{device}'"
    )
}
