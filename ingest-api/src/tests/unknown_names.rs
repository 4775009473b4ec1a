//! Names that the registry does not have, by the state of the registry and the policy.

use schema::metric;
use serde_json::json;

use super::support::*;
use crate::UnknownDevices::{self, Register, Reject};
use crate::registry::Freshness::{self, Empty, Fresh, Stale};

fn setup(unknown_devices: UnknownDevices, freshness: Freshness) -> Setup {
    Setup {
        unknown_devices,
        freshness,
        ..Setup::default()
    }
}

/// With the policy `register`, PostgreSQL is unavailable in these tests.
#[tokio::test]
async fn an_unknown_name_is_rejected_only_when_the_registry_is_up_to_date() {
    for (policy, freshness, status, code, counts) in [
        (Reject, Fresh, 422, "no_reading_accepted", [0, 1, 0]),
        (Reject, Stale, 503, "registry_unavailable", [0, 0, 1]),
        (Reject, Empty, 503, "registry_unavailable", [0, 0, 1]),
        (Register, Fresh, 503, "registry_unavailable", [0, 0, 1]),
        (Register, Stale, 503, "registry_unavailable", [0, 0, 1]),
        (Register, Empty, 503, "registry_unavailable", [0, 0, 1]),
    ] {
        for (device, metric) in [("meter-2", "p"), (METER, "q")] {
            let front_end = setup(policy, freshness).start();
            let response = front_end.post("", &json!([reading(device, metric)])).await;
            let what = format!("{policy:?}, {freshness:?}, {device}, {metric}: {response:?}");
            assert_eq!(
                (response.status, response.code()),
                (status, Some(code)),
                "{what}"
            );
            assert_eq!(response.counts(), counts, "{what}");
            front_end.assert_books(&what);
        }
    }
}

#[tokio::test]
async fn known_names_are_accepted_and_rejected_from_memory_while_the_registry_is_stale() {
    for policy in [Reject, Register] {
        let mut front_end = setup(policy, Stale).start();
        front_end.sent.take().unwrap().respond_with(Ok(()));
        let readings = json!([
            reading(METER, "p"),
            reading(INACTIVE, "p"),
            reading("", "p")
        ]);
        let response = front_end.post("", &readings).await;
        assert_eq!(
            (response.status, response.counts()),
            (202, [1, 2, 0]),
            "{policy:?}"
        );
        assert_eq!(response.errors(), [(1, "inactive_device"), (2, "bad_name")]);
        front_end.assert_books("stale");
    }
}

#[tokio::test]
async fn readings_with_known_names_are_stored_although_others_have_to_be_retried() {
    let mut front_end = setup(Reject, Stale).start();
    let batches = front_end.sent.take().unwrap().respond_with(Ok(()));
    let readings = json!([
        reading(METER, "p"),
        reading("meter-2", "p"),
        reading("", "p"),
        reading(METER, "p"),
        reading(METER, "q")
    ]);
    let response = front_end.post("", &readings).await;
    assert_eq!(
        (response.status, response.code()),
        (503, Some("registry_unavailable"))
    );
    assert_eq!(response.counts(), [2, 1, 2]);
    assert_eq!(batches.lock().unwrap()[0].len(), 2);
    assert_eq!(front_end.counted(metric::ACCEPTED), 2);
    assert_eq!(front_end.unavailable("registry"), 2);
    front_end.assert_books("partially unavailable");
}

/// A retry of a reading without a time of its own is another reading.
#[tokio::test]
async fn nothing_is_stored_of_a_request_to_retry_that_is_atomic_or_has_readings_without_times() {
    let timed = json!([reading(METER, "p"), reading("meter-2", "p")]);
    let without_time = json!([untimed(METER, "p"), reading("meter-2", "p")]);
    let unknown_without_time = json!([reading(METER, "p"), untimed("meter-2", "p")]);
    for (query, readings) in [
        ("?atomic=true", timed),
        ("", without_time),
        ("", unknown_without_time),
    ] {
        let mut front_end = setup(Reject, Stale).start();
        let batches = front_end.sent.take().unwrap().respond_with(Ok(()));
        let response = front_end.post(query, &readings).await;
        assert_eq!(
            (response.status, response.code()),
            (503, Some("registry_unavailable"))
        );
        assert_eq!(response.counts(), [0, 0, 2], "{query} {readings}");
        assert_eq!(batches.lock().unwrap().len(), 0);
        assert_eq!(front_end.unavailable("registry"), 2);
        front_end.assert_books(query);
    }
}
