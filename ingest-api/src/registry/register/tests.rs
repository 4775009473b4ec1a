//! The registrar with a real PostgreSQL.

use store::registry::Device;
use store::testing::{connect, create_database, pool};
use transport::testing::within_limit;

use super::*;

/// A registrar with this limit, its registry, and the URL of its database.
async fn start(max_series: usize) -> (Registrar, Arc<Registry>, String) {
    let url = create_database().await;
    let registry = Arc::new(Registry::default());
    registry.set_reachable(true);
    let (registrar, _task) = Registrar::start(registry.clone(), pool(&url, 1), max_series);
    (registrar, registry, url)
}

fn pair(device: &str, metric: &str) -> Pair {
    (device.to_owned(), metric.to_owned())
}

fn device(id: i32, name: &str, series: i32) -> Device {
    Device {
        id,
        name: name.into(),
        active: true,
        series: (0..series).map(|n| (format!("p{n}"), n)).collect(),
    }
}

fn is_registered(registry: &Registry, (device, metric): &Pair) -> bool {
    matches!(registry.names().find(device, metric), Lookup::Series(_))
}

async fn series_in_database(url: &str) -> i64 {
    let client = connect(url).await;
    let row = client.query_one("SELECT count(*) FROM series", &[]).await;
    row.unwrap().get(0)
}

#[tokio::test]
async fn names_are_in_the_registry_and_in_the_database_when_a_registration_returns() {
    let (registrar, registry, url) = start(1_000).await;
    let requests: Vec<Vec<Pair>> = (0..50)
        .map(|n| {
            vec![
                pair(&format!("m{}", n % 10), "p"),
                pair("shared", &format!("q{n}")),
            ]
        })
        .collect();
    let mut registering = tokio::task::JoinSet::new();
    for pairs in requests.clone() {
        let registrar = registrar.clone();
        registering.spawn(async move { registrar.register(pairs).await });
    }
    for result in within_limit("all are registered", registering.join_all()).await {
        assert_eq!(result, Ok(()));
    }
    assert!(
        requests
            .iter()
            .flatten()
            .all(|pair| is_registered(&registry, pair))
    );
    assert_eq!(
        (registry.series(), series_in_database(&url).await),
        (60, 60)
    );
    // Known names need no room.
    assert_eq!(registrar.register(requests[0].clone()).await, Ok(()));
    assert_eq!(series_in_database(&url).await, 60);
}

#[tokio::test]
async fn the_limit_on_series_refuses_whole_requests_and_no_other_request() {
    let (registrar, registry, url) = start(3).await;
    let names = |names: &[&str]| names.iter().map(|name| pair(name, "p")).collect::<Vec<_>>();
    assert_eq!(registrar.register(names(&["a"])).await, Ok(()));
    // The three requests are registered together.
    let (too_many, fits, full) = tokio::join!(
        registrar.register(names(&["b", "c", "d"])),
        registrar.register(names(&["a", "e", "f", "e"])),
        registrar.register(names(&["g"])),
    );
    assert_eq!(too_many, Err(RegisterError::Full));
    assert_eq!(fits, Ok(()));
    assert_eq!(full, Err(RegisterError::Full));
    assert_eq!((registry.series(), series_in_database(&url).await), (3, 3));
    assert_eq!(registrar.register(names(&["a", "f"])).await, Ok(()));
}

/// The series of another front end may be beyond the limit here, or be these very names.
#[tokio::test]
async fn the_registry_is_reported_as_full_only_when_it_is_up_to_date() {
    let (registrar, registry, url) = start(1).await;
    let register = async |name| registrar.register(vec![pair(name, "p")]).await;
    assert_eq!(register("a").await, Ok(()));
    assert_eq!(register("b").await, Err(RegisterError::Full));
    registry.set_reachable(false);
    assert_eq!(registry.freshness(), Freshness::Stale);
    assert_eq!(register("b").await, Err(RegisterError::Unavailable));
    assert_eq!(register("a").await, Ok(()));
    registry.set_reachable(true);
    assert_eq!(register("b").await, Err(RegisterError::Full));
    assert_eq!(series_in_database(&url).await, 1);
}

#[tokio::test]
async fn a_device_has_at_most_4096_series() {
    let (registrar, registry, url) = start(100_000).await;
    // Device ids of the database begin at 1.
    registry.update(vec![
        device(1_001, "full", 4_096),
        device(1_002, "almost", 4_094),
    ]);
    let register = async |pairs: &[Pair]| registrar.register(pairs.to_vec()).await;
    assert_eq!(
        register(&[pair("full", "new")]).await,
        Err(RegisterError::Full)
    );
    let three = ["x", "y", "z"].map(|metric| pair("almost", metric));
    assert_eq!(register(&three).await, Err(RegisterError::Full));
    // Two requests that fit alone, but not together.
    let (first, second) = tokio::join!(register(&three[..2]), register(&three[2..]));
    assert_eq!((first, second), (Ok(()), Err(RegisterError::Full)));
    assert_eq!(
        register(&[pair("full", "p0"), pair("other", "p")]).await,
        Ok(())
    );
    assert_eq!(series_in_database(&url).await, 3);
}

#[tokio::test]
async fn names_stay_unregistered_while_postgresql_is_unavailable() {
    let registry = Arc::new(Registry::default());
    registry.set_reachable(true);
    // Nothing listens there.
    let pool = pool("postgres://gridwatch@127.0.0.1:1/none", 1);
    let (registrar, task) = Registrar::start(registry.clone(), pool, 10);
    let new = pair("a", "p");
    let result = registrar.register(vec![new.clone()]).await;
    assert_eq!(result, Err(RegisterError::Unavailable));
    assert!(!is_registered(&registry, &new));
    drop(registrar);
    within_limit("the registrar ends", task).await.unwrap();
}

#[test]
fn the_log_names_a_few_of_the_new_series_and_shortens_long_names() {
    let names = |devices: &[&str]| devices.iter().map(|name| pair(name, "power")).collect();
    assert_eq!(examples(&names(&["m-1"])), "m-1 power");
    assert_eq!(
        examples(&names(&["m-1", "m-2", "m-3", "m-4", "m-5"])),
        "m-1 power, m-2 power, m-3 power, …"
    );
    let (long, shortened) = ("ü".repeat(200), "ü".repeat(60));
    assert_eq!(examples(&names(&[&long])), format!("{shortened}… power"));
}
