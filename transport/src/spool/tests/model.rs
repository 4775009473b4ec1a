//! The spool compared with a model in memory.

use super::*;

#[derive(Debug, Clone)]
enum Step {
    /// Payloads of these sizes, appended together.
    Append(Vec<usize>),
    /// Receives up to this number of records and acknowledges them.
    Acknowledge(usize),
    /// Receives up to this number of records, which are delivered again after the next opening.
    Receive(usize),
    /// Closes and opens.
    Reopen,
    /// Opens after a crash that left these bytes after the last sync.
    Crash(Vec<u8>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => proptest::collection::vec(0..300_usize, 1..6).prop_map(Step::Append),
        3 => (1..8_usize).prop_map(Step::Acknowledge),
        1 => (1..4_usize).prop_map(Step::Receive),
        1 => Just(Step::Reopen),
        1 => proptest::collection::vec(any::<u8>(), 0..60).prop_map(Step::Crash),
    ];
    proptest::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn the_spool_behaves_like_a_queue_in_memory(steps in steps()) {
        let directory = tempfile::tempdir().unwrap();
        runtime().block_on(async {
            let mut open = crate::spool::open(config(directory.path()), 1_000).unwrap();
            // The model: the numbers of the appended payloads, how many of them are acknowledged,
            // and how many were received.
            let (mut appended, mut acknowledged, mut received) = (Vec::new(), 0, 0);
            for step in steps {
                let (spool, source, _) = &mut open;
                match step {
                    Step::Append(sizes) => {
                        let first = appended.len();
                        let appends = sizes.iter().enumerate().map(|(index, &size)| {
                            spool.append(payload(first + index, size), 3)
                        });
                        for result in futures_util::future::join_all(appends).await {
                            result.unwrap();
                        }
                        appended.extend(first..first + sizes.len());
                    }
                    Step::Acknowledge(count) => {
                        let count = count.min(appended.len() - received);
                        let numbers = receive(source, count as u64).await;
                        prop_assert_eq!(numbers, &appended[received..received + count]);
                        received += count;
                        acknowledged = received;
                        source.acknowledge(acknowledged as u64).await;
                    }
                    Step::Receive(count) => {
                        let count = count.min(appended.len() - received);
                        let numbers = receive(source, count as u64).await;
                        prop_assert_eq!(numbers, &appended[received..received + count]);
                        received += count;
                    }
                    Step::Reopen | Step::Crash(_) => {
                        let (spool, source, guard) = open;
                        guard.close();
                        drop((spool, source));
                        if let Step::Crash(tail) = step {
                            let (key, firsts) = segment::list(directory.path()).unwrap();
                            let last = *firsts.last().unwrap();
                            let path = segment::path(directory.path(), key.unwrap(), last);
                            let mut file = File::options().append(true).open(path).unwrap();
                            file.write_all(&tail).unwrap();
                        }
                        open = crate::spool::open(config(directory.path()), 1_000).unwrap();
                        let depth = open.0.depth();
                        prop_assert_eq!(depth.records, (appended.len() - acknowledged) as u64);
                        prop_assert_eq!(depth.readings, 3 * depth.records);
                        received = acknowledged;
                    }
                }
            }
            let rest = (appended.len() - received) as u64;
            prop_assert_eq!(receive(&mut open.1, rest).await, &appended[received..]);
            prop_assert_eq!(quarantined(directory.path()), 0);
            Ok(())
        })?;
    }

    #[test]
    fn opening_accepts_any_bytes_as_a_segment(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        second in any::<bool>(),
    ) {
        let directory = tempfile::tempdir().unwrap();
        fs::write(segment::path(directory.path(), 7, 1), &bytes).unwrap();
        if second {
            fs::write(segment::path(directory.path(), 7, 9), &bytes).unwrap();
        }
        let (spool, _source, _guard) = crate::spool::open(config(directory.path()), 10).unwrap();
        prop_assert_eq!(spool.depth().records, 0);
        runtime().block_on(spool.append(payload(1, 1), 1)).unwrap();
    }
}
