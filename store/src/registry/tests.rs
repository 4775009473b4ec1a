//! The registry tables in a real PostgreSQL.

use std::collections::BTreeMap;

use testbed::wait::until_async;

use super::*;
use crate::testing::{LIMIT, connect, create_database, pool};

fn new<'a>(device: &'a str, metric: &'a str, unit: Option<&'a str>) -> NewSeries<'a> {
    NewSeries {
        device,
        metric,
        unit,
    }
}

/// Device and metric of each series, with its id.
type SeriesIds = BTreeMap<(String, String), SeriesId>;

fn series_ids(devices: &[Device]) -> SeriesIds {
    let pairs = devices.iter().flat_map(|device| {
        let pair = |(metric, id): &(String, _)| ((device.name.clone(), metric.clone()), *id);
        device.series.iter().map(pair)
    });
    pairs.collect()
}

async fn count(client: &Client, table: &str) -> i64 {
    let statement = format!("SELECT count(*) FROM {table}");
    client.query_one(&statement, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn registering_returns_each_device_with_all_of_its_series_and_repeats_change_nothing() {
    let client = connect(&create_database().await).await;
    let first = [
        new("a", "p", None),
        new("a", "q", None),
        new("b", "p", None),
    ];
    let ids = series_ids(&register(&client, &first).await.unwrap());
    assert_eq!(ids.len(), 3);
    // One is new, one exists already, and one occurs twice.
    let second = [
        new("a", "p", None),
        new("a", "r", None),
        new("a", "r", None),
    ];
    let devices = register(&client, &second).await.unwrap();
    assert_eq!((devices.len(), devices[0].active), (1, true));
    let all_of_a = series_ids(&devices);
    let metrics: Vec<&str> = all_of_a.keys().map(|(_, metric)| metric.as_str()).collect();
    assert_eq!(metrics, ["p", "q", "r"]);
    for (pair, id) in &all_of_a {
        assert!(
            ids.get(pair).is_none_or(|earlier| earlier == id),
            "{pair:?}"
        );
    }
    assert_eq!(
        (
            count(&client, "device").await,
            count(&client, "series").await
        ),
        (2, 4)
    );
    assert_eq!(register(&client, &[]).await.unwrap(), []);
}

#[tokio::test]
async fn more_names_than_fit_into_one_statement_are_all_registered() {
    let client = connect(&create_database().await).await;
    let names: Vec<String> = (0..=NAMES_PER_STATEMENT).map(|n| format!("m{n}")).collect();
    let series: Vec<_> = names.iter().map(|name| new(name, "p", None)).collect();
    let ids = series_ids(&register(&client, &series).await.unwrap());
    assert_eq!(ids.len(), NAMES_PER_STATEMENT + 1);
}

#[tokio::test]
async fn a_stored_unit_is_kept() {
    let client = connect(&create_database().await).await;
    for (given, stored) in [
        (None, None),
        (Some("W"), Some("W")),
        (None, Some("W")),
        (Some("kW"), Some("W")),
    ] {
        register(&client, &[new("a", "p", given)]).await.unwrap();
        let row = client
            .query_one("SELECT unit FROM series", &[])
            .await
            .unwrap();
        assert_eq!(row.get::<_, Option<&str>>(0), stored, "{given:?}");
    }
}

#[tokio::test]
async fn adding_counts_what_is_new_and_adds_missing_units() {
    let mut client = connect(&create_database().await).await;
    register(&client, &[new("a", "p", None), new("a", "q", Some("V"))])
        .await
        .unwrap();
    let series = [
        new("a", "p", Some("W")),
        new("a", "q", None),
        new("a", "r", Some("A")),
        new("b", "p", None),
    ];
    let expected = |devices, series, units| Added {
        devices,
        series,
        units,
    };
    assert_eq!(add(&mut client, &series).await, Ok(expected(1, 2, 1)));
    assert_eq!(add(&mut client, &series).await, Ok(expected(0, 0, 0)));
    let sql = "SELECT concat_ws(' ', external_id, metric, unit)
               FROM device d JOIN series s ON device_id = d.id ORDER BY external_id, metric";
    let listed = client.query(sql, &[]).await.unwrap();
    let listed: Vec<String> = listed.iter().map(|row| row.get(0)).collect();
    assert_eq!(listed, ["a p W", "a q V", "a r A", "b p"]);
}

#[tokio::test]
async fn adding_with_another_unit_registers_nothing_and_names_the_series() {
    let mut client = connect(&create_database().await).await;
    register(&client, &[new("a", "p", Some("W")), new("a", "q", None)])
        .await
        .unwrap();
    let series = [
        new("a", "p", Some("kW")),
        new("a", "q", Some("V")),
        new("b", "p", Some("W")),
    ];
    let conflict = UnitConflict {
        device: "a".into(),
        metric: "p".into(),
        stored: "W".into(),
        given: "kW".into(),
    };
    let expected = AddError::Units(vec![conflict]);
    assert_eq!(add(&mut client, &series).await, Err(expected));
    assert_eq!(count(&client, "device").await, 1);
    assert_eq!(count(&client, "series WHERE unit IS NOT NULL").await, 1);
}

#[tokio::test]
async fn adding_waits_for_a_registration_of_the_same_names_and_counts_none_of_them() {
    let url = create_database().await;
    let (first, mut second, observer) = (
        connect(&url).await,
        connect(&url).await,
        connect(&url).await,
    );
    first.batch_execute("BEGIN").await.unwrap();
    let series = [new("a", "p", Some("W"))];
    register(&first, &series).await.unwrap();
    let waiting = add(&mut second, &series);
    let commit = async {
        until_async("the second registration waits", LIMIT, async || {
            let waits = "pg_stat_activity WHERE wait_event_type = 'Lock'
                         AND datname = current_database()";
            count(&observer, waits).await == 1
        })
        .await;
        first.batch_execute("COMMIT").await.unwrap();
    };
    let (added, ()) = tokio::join!(waiting, commit);
    let none = Added {
        devices: 0,
        series: 0,
        units: 0,
    };
    assert_eq!(added, Ok(none));
}

#[tokio::test]
async fn two_processes_that_add_units_in_other_orders_do_not_deadlock() {
    let url = create_database().await;
    let (blocker, observer) = (connect(&url).await, connect(&url).await);
    let (mut first, mut second) = (connect(&url).await, connect(&url).await);
    for (device, reversed) in [("a", false), ("b", true)] {
        let without = [new("a", "p", None), new("b", "p", None)];
        register(&blocker, &without).await.unwrap();
        let without_units = "UPDATE series SET unit = NULL";
        blocker.batch_execute(without_units).await.unwrap();
        // Both have to wait, so that they go on at the same time.
        let block = format!(
            "BEGIN;
             SELECT FROM series JOIN device ON device.id = device_id
             WHERE external_id = '{device}' FOR NO KEY UPDATE OF series"
        );
        blocker.batch_execute(&block).await.unwrap();
        let mut series = [new("a", "p", Some("W")), new("b", "p", Some("W"))];
        if reversed {
            series.reverse();
        }
        let mut other = series;
        other.reverse();
        let wait_for = async |waiting| {
            until_async("the processes wait", LIMIT, async || {
                let waits = "pg_stat_activity WHERE wait_event_type = 'Lock'
                             AND datname = current_database()";
                count(&observer, waits).await == waiting
            })
            .await;
        };
        let second_add = async {
            wait_for(1).await;
            add(&mut second, &other).await
        };
        let commit = async {
            wait_for(2).await;
            blocker.batch_execute("COMMIT").await.unwrap();
        };
        let (added, also, ()) = tokio::join!(add(&mut first, &series), second_add, commit);
        assert_eq!(added.unwrap().units + also.unwrap().units, 2);
    }
}

#[tokio::test]
async fn a_renamed_device_keeps_its_id_and_its_old_name_is_free() {
    let client = connect(&create_database().await).await;
    let before = register(&client, &[new("old", "p", None)]).await.unwrap();
    let rename = "UPDATE device SET external_id = 'new', active = false";
    client.batch_execute(rename).await.unwrap();
    let after = register(&client, &[new("new", "p", None)]).await.unwrap();
    let expected = Device {
        name: "new".into(),
        active: false,
        ..before[0].clone()
    };
    assert_eq!(after, [expected]);
    let other = register(&client, &[new("old", "p", None)]).await.unwrap();
    assert!(other[0].id != before[0].id && other[0].series[0].1 != before[0].series[0].1);
}

#[tokio::test]
async fn a_registration_waits_for_another_one_of_the_same_names_and_returns_the_same_ids() {
    let url = create_database().await;
    let (first, second, observer) = (
        connect(&url).await,
        connect(&url).await,
        connect(&url).await,
    );
    let series = [new("a", "p", None), new("a", "q", Some("V"))];
    first.batch_execute("BEGIN").await.unwrap();
    let ids = series_ids(&register(&first, &series).await.unwrap());
    let waiting = async { series_ids(&register(&second, &series).await.unwrap()) };
    let commit = async {
        until_async("the second registration waits", LIMIT, async || {
            let waits = "pg_stat_activity WHERE wait_event_type = 'Lock'
                         AND datname = current_database()";
            count(&observer, waits).await == 1
        })
        .await;
        first.batch_execute("COMMIT").await.unwrap();
    };
    let (same_ids, ()) = tokio::join!(waiting, commit);
    assert_eq!(ids, same_ids);
}

#[tokio::test]
async fn two_processes_that_register_the_same_names_in_other_orders_do_not_deadlock() {
    let url = create_database().await;
    let (first, second) = (connect(&url).await, connect(&url).await);
    let names: Vec<String> = (0..2_000).map(|n| format!("m{n}")).collect();
    let mut series: Vec<_> = names.iter().map(|name| new(name, "p", None)).collect();
    let ascending = series.clone();
    series.reverse();
    for _ in 0..5 {
        let both = tokio::try_join!(register(&first, &ascending), register(&second, &series));
        let (a, b) = both.unwrap();
        assert_eq!(series_ids(&a), series_ids(&b));
    }
}

/// What a front end knows: it reads the changes again and again.
struct Reader {
    pool: Pool,
    position: Position,
    devices: BTreeMap<i32, Device>,
}

impl Reader {
    fn new(url: &str) -> Self {
        Self {
            pool: pool(url, 1),
            position: Position::default(),
            devices: BTreeMap::new(),
        }
    }

    async fn read(&mut self) {
        let devices = &mut self.devices;
        let update = |changed: Vec<Device>| {
            devices.extend(changed.into_iter().map(|device| (device.id, device)));
        };
        let next = changes_since(&self.pool, &self.position, update).await;
        self.position = next.unwrap();
    }

    /// Asserts that it knows what is committed.
    async fn assert_current(&self, what: &str) {
        let mut complete = Self {
            pool: self.pool.clone(),
            position: Position::default(),
            devices: BTreeMap::new(),
        };
        complete.read().await;
        assert_eq!(self.devices, complete.devices, "{what}");
    }
}

#[tokio::test]
async fn reading_changes_misses_none_in_whatever_order_transactions_commit() {
    let orders = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ];
    let url = create_database().await;
    let mut writers = Vec::new();
    for _ in 0..3 {
        writers.push(connect(&url).await);
    }
    let mut reader = Reader::new(&url);
    let setup = [new("metric", "p", None), new("rename", "p", None)];
    register(&writers[0], &setup).await.unwrap();
    reader.read().await;
    for (round, order) in orders.iter().enumerate() {
        let changes = [
            format!("INSERT INTO device (external_id) VALUES ('m{round}')"),
            format!(
                "INSERT INTO series (device_id, metric)
                 SELECT id, 'q{round}' FROM device WHERE external_id = 'metric'"
            ),
            format!("UPDATE device SET external_id = 'rename{round}' WHERE external_id ~ 'rename'"),
        ];
        for (writer, change) in writers.iter().zip(changes) {
            writer.batch_execute("BEGIN").await.unwrap();
            writer.batch_execute(&change).await.unwrap();
            reader.read().await;
        }
        for &writer in order {
            writers[writer].batch_execute("COMMIT").await.unwrap();
            reader.read().await;
            reader
                .assert_current(&format!("{order:?}, after {writer}"))
                .await;
        }
    }
    let renamed = |device: &Device| device.name == "rename5";
    assert_eq!(reader.devices.len(), 8);
    assert!(reader.devices.values().any(renamed));
}

#[tokio::test]
async fn missing_tables_are_reported_with_what_to_do() {
    let url = create_database().await;
    connect(&url)
        .await
        .batch_execute("DROP TABLE device, series CASCADE")
        .await
        .unwrap();
    let mut client = connect(&url).await;
    let history = "DROP TABLE refinery_schema_history";
    client.batch_execute(history).await.unwrap();
    let read = changes_since(&pool(&url, 1), &Position::default(), |_| {}).await;
    assert!(read.unwrap_err().contains("gridwatch migrate"));
    let added = add(&mut client, &[new("a", "p", None)]).await;
    let sentence = added.unwrap_err().to_string();
    assert!(sentence.contains("gridwatch migrate"), "{sentence}");
}
