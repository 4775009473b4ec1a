//! Bounds, rejected records and failures of the disk.

use super::*;

#[test]
fn a_full_spool_refuses_until_records_are_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let small = Config {
        max_bytes: 4_000,
        ..config(directory.path())
    };
    let (spool, mut source, guard) = crate::spool::open(small, 1_000).unwrap();
    runtime().block_on(async {
        let mut received = BTreeSet::new();
        for round in 0..50 {
            let mut count = 0;
            while spool.append(payload(round, 100), 1).await == Ok(()) {
                count += 1;
            }
            assert_eq!(
                spool.append(payload(round, 100), 1).await,
                Err(AppendError::Full)
            );
            assert!(count >= 20, "round {round}: only {count} fit");
            assert_eq!(spool.shared.lock().refusal, Some("full"));
            received.extend(receive(&mut source, count).await);
            source.acknowledge(u64::MAX).await;
            spool.append(payload(round, 1), 1).await.unwrap();
            assert_eq!(spool.shared.lock().refusal, None);
            assert_eq!(receive(&mut source, 1).await, [round]);
            source.acknowledge(u64::MAX).await;
        }
        assert_eq!(received, (0..50).collect());
    });
    guard.close();
    assert_eq!(spool.depth(), Depth::default());
    assert!(
        segment::list(directory.path()).unwrap().1.len() < 12,
        "segments were not deleted"
    );
    // The segments that are gone were acknowledged, which the others remember.
    drop((spool, source));
    assert_eq!(missing_after(directory.path()), 0);
}

#[test]
fn a_failed_sync_is_fatal_and_is_not_retried() {
    let directory = tempfile::tempdir().unwrap();
    let sync = |_: &File| Err(io::Error::other("the disk was removed"));
    let (spool, _source, _guard) = open_with(config(directory.path()), 10, sync).unwrap();
    let failed = Err(AppendError::Failed("the disk was removed".into()));
    runtime().block_on(async {
        assert_eq!(spool.append(payload(1, 1), 1).await, failed);
        spool.failed().cancelled().await;
        assert_eq!(spool.append(payload(2, 1), 1).await, failed);
    });
}

#[test]
fn opening_a_directory_that_is_in_use_fails() {
    let directory = tempfile::tempdir().unwrap();
    let (_spool, _source, guard) = crate::spool::open(config(directory.path()), 10).unwrap();
    let second = crate::spool::open(config(directory.path()), 10)
        .map(|_| ())
        .unwrap_err();
    assert!(
        second.to_string().contains("in use by another process"),
        "{second}"
    );
    guard.close();
    crate::spool::open(config(directory.path()), 10).unwrap();
}

#[test]
fn a_rejected_record_is_quarantined_and_does_not_block_others() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, mut source, guard) = crate::spool::open(config(directory.path()), 100).unwrap();
    runtime().block_on(async {
        for number in 1..=4 {
            spool.append(payload(number, 10), 1).await.unwrap();
        }
        assert_eq!(receive(&mut source, 4).await, [1, 2, 3, 4]);
        let tag = |tag| DeliveryTag { generation: 1, tag };
        source.reject(tag(3)).await;
        source.acknowledge_through(tag(2)).await;
        source.reject(tag(4)).await;
    });
    guard.close();
    let path = directory
        .path()
        .join("rejected/00000000000000000003.message");
    assert_eq!(fs::read(path).unwrap(), payload(3, 10));
    let (spool, _source, _guard) = crate::spool::open(config(directory.path()), 100).unwrap();
    assert_eq!(spool.depth().records, 0);
}

#[test]
fn at_most_prefetch_records_are_unacknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, mut source, _guard) = crate::spool::open(config(directory.path()), 2).unwrap();
    runtime().block_on(async {
        for number in 1..=3 {
            spool.append(payload(number, 10), 1).await.unwrap();
        }
        assert_eq!(receive(&mut source, 2).await, [1, 2]);
        assert!(source.try_next_record().is_none());
        assert!(source.next_record().now_or_never().is_none());
        source.acknowledge(1).await;
        assert_eq!(receive(&mut source, 1).await, [3]);
    });
}

#[test]
fn only_a_failed_disk_leaves_it_open_whether_a_batch_is_stored() {
    for (error, may_be_stored) in [
        (AppendError::Full, false),
        (AppendError::TooLarge, false),
        (AppendError::Io("no space left".into()), false),
        (AppendError::Failed("sync".into()), true),
    ] {
        let sink_error = SinkError::from(error);
        let unconfirmed = matches!(sink_error, SinkError::Unconfirmed(_));
        assert_eq!(unconfirmed, may_be_stored, "{sink_error:?}");
    }
}
