use super::*;
use crate::harness::idle_server;
use crate::scenario::Scenario;

/// Starts the idle server and returns its URL.
async fn idle_server() -> String {
    let address = idle_server::start(([127, 0, 0, 1], 0).into()).await;
    format!("http://{}", address.unwrap())
}

/// A generator of 30 seconds of readings: 300 requests of 10 readings.
fn generator(url: &str, pacing: Pacing) -> Generator {
    let scenario = "name='x'\nrate=100\nduration='30s'\nbatch=10\nconnections=4\n";
    let scenario = Scenario::parse(scenario).unwrap();
    let mut target = Target::new(url).unwrap();
    target.is_checked = false;
    Generator {
        traffic: Arc::new(Traffic::new(&scenario, 1_793_491_200_000_000).render_all()),
        target,
        threads: 2,
        pacing,
    }
}

#[tokio::test]
async fn the_generator_sends_every_request_as_fast_as_possible() {
    let (url, started, mut last) = (idle_server().await, Instant::now(), 0);
    let generator = generator(&url, Pacing::AsFastAsPossible);
    let sent = generator
        .send(CancellationToken::new(), |counts| last = counts.accepted)
        .await
        .unwrap()
        .ensure_all_accepted()
        .unwrap();
    assert_eq!(
        (sent.counts.sent, sent.counts.accepted, last),
        (300, 3_000, 3_000)
    );
    assert_eq!(sent.latency_ms.count, 300);
    assert!(sent.accepted_per_second() > 100.0 && started.elapsed().as_secs() < 20);
}

#[tokio::test]
async fn a_stopped_generator_returns_what_it_has_sent() {
    let (url, stop) = (idle_server().await, CancellationToken::new());
    let sent = generator(&url, Pacing::Scenario)
        .send(stop.clone(), |counts| {
            if counts.sent > 0 {
                stop.cancel();
            }
        })
        .await
        .unwrap();
    assert!((1..300).contains(&sent.counts.sent), "{sent:?}");
    assert!(sent.ensure_all_accepted().is_ok());
}

#[tokio::test]
async fn requests_to_an_unavailable_target_are_errors() {
    let sent = generator("http://127.0.0.1:1", Pacing::AsFastAsPossible)
        .send(CancellationToken::new(), |_| {})
        .await
        .unwrap();
    assert_eq!((sent.counts.errors, sent.counts.unknown), (300, 3_000));
    let error = sent.ensure_all_accepted().unwrap_err().to_string();
    assert!(error.contains("300 requests failed or dropped"), "{error}");
}
