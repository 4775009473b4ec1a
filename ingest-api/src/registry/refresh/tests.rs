//! Refreshing over a connection that breaks.

use service::health::{Component, Health};
use store::registry::{NewSeries, register};
use store::testing::{connect, create_database, pool, server};
use testbed::faulty_proxy::{Condition, FaultyProxy};
use testbed::wait::until_async;
use transport::testing::LIMIT;

use super::*;
use crate::registry::{Freshness, Lookup};

#[tokio::test]
async fn the_registry_is_stale_while_postgresql_is_unavailable_and_then_reads_what_it_missed() {
    let url = create_database().await;
    let client = connect(&url).await;
    let add = async |device: &str| {
        let series = NewSeries {
            device,
            metric: "p",
            unit: None,
        };
        register(&client, &[series]).await.unwrap();
    };
    add("before").await;
    let proxy = FaultyProxy::start(server().address()).await.unwrap();
    let proxied = url.replace(&server().address(), &proxy.address().to_string());
    let registry = Arc::new(Registry::default());
    let health = Health::new(&[Component::Registry]).component(Component::Registry);
    let stop = CancellationToken::new();
    let pool = pool(&proxied, 1);
    let refreshing = tokio::spawn(run(registry.clone(), pool, health, stop.clone()));
    let knows = |device| matches!(registry.names().find(device, "p"), Lookup::Series(_));
    let wait_for = async |what: &str, freshness| {
        until_async(what, LIMIT, async || registry.freshness() == freshness).await;
    };

    wait_for("the registry is loaded", Freshness::Fresh).await;
    assert!(knows("before"));
    proxy.set(Condition::Disconnected);
    wait_for("the registry is stale", Freshness::Stale).await;
    add("meanwhile").await;
    assert!(knows("before") && !knows("meanwhile"));
    proxy.set(Condition::HEALTHY);
    wait_for("the registry is up to date", Freshness::Fresh).await;
    assert!(knows("before") && knows("meanwhile"));
    stop.cancel();
    refreshing.await.unwrap();
}
