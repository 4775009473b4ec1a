//! Questions about stored readings, each against the same question in SQL.

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::Arguments;
use crate::client::{Client, psql};
use crate::dataset::{Dataset, STATION};
use crate::report::{Figure, Goal};

/// Compares a request with a statement of `psql`.
async fn compare(
    dataset: &Dataset,
    mut figure: Figure,
    rounds: usize,
    (path, statement): (&str, &str),
) -> anyhow::Result<Figure> {
    let mut client = Client::connect(&dataset.address).await?;
    for _ in 0..rounds {
        let limit = psql(&dataset.url, statement)?;
        client.time(path).await?;
        let (time, length) = client.time(path).await?;
        println!(
            "  {}: limit {limit:.1} ms, gridwatch {time:.1} ms, {length} bytes",
            figure.what
        );
        figure.add_round(limit, time);
    }
    Ok(figure)
}

/// A day of a device at 1 Hz, in every format.
pub(crate) async fn day(dataset: &Dataset, arguments: &Arguments) -> anyhow::Result<Vec<Figure>> {
    let [day, end] = &dataset.closed;
    let copy = format!(
        "COPY (SELECT measured_at, value FROM reading WHERE series_id = (
                   SELECT s.id FROM series s JOIN device d ON d.id = s.device_id
                   WHERE external_id = 'station-1')
               AND measured_at >= '{day}T00:00Z' AND measured_at < '{end}T00:00Z'
               ORDER BY measured_at) TO STDOUT"
    );
    let mut figures = Vec::new();
    for (format, goal) in [("json", 1.5), ("csv", 1.2), ("arrow", 0.8)] {
        let path = format!(
            "/v1/readings?device=station-1&metric=power&from={day}&to={end}\
             &format={format}"
        );
        let what = format!("a day at 1 Hz as {format}");
        let figure = Figure::new(what, "ms", Goal::RatioAtMost(goal));
        figures.push(compare(dataset, figure, arguments.rounds, (&path, &copy)).await?);
    }
    Ok(figures)
}

/// A station of ten devices, a day in quarters of an hour.
pub(crate) async fn station(
    dataset: &Dataset,
    arguments: &Arguments,
) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (source, [day, end], goal) in [
        ("readings", &dataset.open, 1.2),
        ("roll-ups", &dataset.closed, 0.1),
    ] {
        let buckets = format!(
            "SELECT series_id, date_bin('15 minutes', measured_at, 'epoch') AS bucket,
                    count(*) AS count, avg(value) AS mean
             FROM reading
             WHERE series_id IN (SELECT s.id FROM series s JOIN device d ON d.id = s.device_id
                                 WHERE d.component = '{STATION}')
               AND measured_at >= '{day}T00:00Z' AND measured_at < '{end}T00:00Z'
             GROUP BY 1, 2"
        );
        let sum = format!(
            "SELECT bucket, sum(count), count(*), sum(mean) FROM ({buckets}) AS b
             GROUP BY 1 ORDER BY 1"
        );
        let each = format!("{buckets} ORDER BY 1, 2");
        for (combine, statement) in [("sum", &sum), ("none", &each)] {
            let path = format!(
                "/v1/readings?component={STATION}&metric=power&from={day}\
                 &to={end}&resolution=15m&aggregates=mean&combine={combine}"
            );
            let what = match combine {
                "sum" => format!("a station's sum, a day in 15m, {source}"),
                _ => format!("a station's devices, a day in 15m, {source}"),
            };
            let figure = Figure::new(what, "ms", Goal::RatioAtMost(goal));
            figures.push(compare(dataset, figure, arguments.rounds, (&path, statement)).await?);
        }
    }
    Ok(figures)
}

/// Quartiles of each day of a year.
pub(crate) async fn year(dataset: &Dataset, arguments: &Arguments) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let (days, interval) = (arguments.year_days, arguments.year_interval);
    let [closed, _] = &dataset.closed;
    let from = "SELECT to_char($1::text::date - $2::integer, 'YYYY-MM-DD')";
    let before = i32::try_from(days)?;
    let row = dataset.database.query_one(from, &[closed, &before]).await?;
    let from: String = row.get(0);
    for (device, interval) in [("year-900", 900), ("year-fine", interval)] {
        let statement = format!(
            "SELECT (measured_at AT TIME ZONE 'UTC')::date, min(value), percentile_cont(
                 '{{0.25,0.5,0.75}}'::float8[]) WITHIN GROUP (ORDER BY value), max(value)
             FROM reading WHERE series_id = (
                 SELECT s.id FROM series s JOIN device d ON d.id = s.device_id
                 WHERE external_id = '{device}')
               AND measured_at >= '{from}' AND measured_at < '{closed}' GROUP BY 1 ORDER BY 1"
        );
        let path = format!("/v1/daily?device={device}&metric=power&from={from}&to={closed}");
        let what = format!("quartiles of {days} days at {interval} s");
        let figure = Figure::new(what, "ms", Goal::AtMost(50.0));
        // In SQL, a year at 1 Hz takes most of a minute.
        let rounds = if interval < 60 { 1 } else { arguments.rounds };
        figures.push(compare(dataset, figure, rounds, (&path, &statement)).await?);
    }
    Ok(figures)
}

/// The latest reading of each device of the fleet, and the list of devices, through all pages.
pub(crate) async fn fleet(dataset: &Dataset, arguments: &Arguments) -> anyhow::Result<Vec<Figure>> {
    let devices = arguments.devices;
    let latest = "SELECT external_id, metric, unit, r.* FROM device d
                  JOIN series s ON s.device_id = d.id CROSS JOIN LATERAL (
                      SELECT measured_at, value FROM reading WHERE series_id = s.id
                         AND measured_at >= now() - interval '26 hours'
                      ORDER BY measured_at DESC LIMIT 1) r
                  ORDER BY external_id, metric";
    let all = "SELECT * FROM device WHERE deleted_at IS NULL ORDER BY external_id";
    let mut client = Client::connect(&dataset.address).await?;
    let mut figures = Vec::new();
    for (list, statement, goal) in [
        ("latest", latest, Goal::AtMost(1_000.0)),
        ("devices", all, Goal::None),
    ] {
        let mut figure = Figure::new(format!("{list} of {devices} devices"), "ms", goal);
        for _ in 0..arguments.rounds {
            let limit = psql(&dataset.url, statement)?;
            let time = pages(&mut client, list, devices).await?;
            println!("  {list}: limit {limit:.0} ms, gridwatch {time:.0} ms");
            figure.add_round(limit, time);
        }
        figures.push(figure);
    }
    Ok(figures)
}

/// Milliseconds for all pages of a list.
async fn pages(client: &mut Client, list: &str, devices: u32) -> anyhow::Result<f64> {
    let limit = if list == "latest" { "" } else { "limit=5000&" };
    let mut path = format!("/v1/{list}?{limit}");
    path.pop();
    let (mut time, mut entries) = (0.0, 0);
    loop {
        let started = std::time::Instant::now();
        let body = client.get(&path).await?;
        time += crate::client::milliseconds(started.elapsed());
        let page: Value = serde_json::from_slice(&body)?;
        let rows = page[list].as_array().or_else(|| page["items"].as_array());
        entries += rows.with_context(|| format!("{list}: no list"))?.len();
        let Some(next) = page["next"].as_str() else {
            break;
        };
        let next: String = form_urlencoded::byte_serialize(next.as_bytes()).collect();
        path = format!("/v1/{list}?{limit}next={next}");
    }
    ensure!(entries >= devices as usize, "{list}: {entries} entries");
    Ok(time)
}
