//! The balance of the books that every site asserts when it is dropped can fail.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::support::*;

/// Numbers of a site whose books balance: 2 of 20 readings were rejected and 3 were unavailable,
/// one of them unconfirmed, and that one was stored.
fn balanced() -> Books {
    Books {
        front_ends: Some(FrontEndCounters {
            received: 20,
            accepted: 15,
            rejected: 2,
            unavailable: 3,
            unconfirmed: 1,
        }),
        front_ends_complete: true,
        drained: true,
        worker: Some(outcomes()),
        ledger_readings: 16,
        ledger: outcomes(),
        rows: Rows {
            reading: 9,
            conflict: 2,
            dead_letter: 1,
        },
    }
}

fn outcomes() -> Outcomes {
    Outcomes {
        persisted: 9,
        duplicate: 4,
        conflict: 2,
        dead_lettered: 1,
    }
}

fn with(change: impl FnOnce(&mut Books)) -> Books {
    let mut books = balanced();
    change(&mut books);
    books
}

#[test]
fn balanced_books_pass() {
    assert_eq!(balanced().check(), Ok(()));
}

#[test]
fn every_difference_in_the_books_is_reported() {
    let front = |change: fn(&mut FrontEndCounters)| {
        with(|books| change(books.front_ends.as_mut().unwrap()))
    };
    let worker = |change: fn(&mut Outcomes)| with(|books| change(books.worker.as_mut().unwrap()));
    for (books, expected) in [
        (
            front(|front| front.received += 1),
            "received 21 = accepted 15 + rejected 2 + unavailable 3",
        ),
        (
            front(|front| (front.received, front.accepted) = (22, 17)),
            "expected 17 accepted readings (and up to 1 unconfirmed) in the ledger, \
             but the ledger has 16",
        ),
        (
            front(|front| front.unconfirmed = 0),
            "expected 15 accepted readings (and up to 0 unconfirmed) in the ledger, \
             but the ledger has 16",
        ),
        (
            with(|books| books.ledger.duplicate += 1),
            "expected 16 outcomes in the ledger, got 17",
        ),
        (
            with(|books| books.rows.reading -= 1),
            "expected 9 rows in reading as the ledger has, got 8",
        ),
        (
            with(|books| books.rows.conflict += 1),
            "expected 2 rows in conflict as the ledger has, got 3",
        ),
        (
            with(|books| books.rows.dead_letter = 0),
            "expected 1 rows in dead_letter as the ledger has, got 0",
        ),
        (
            worker(|worker| worker.persisted -= 1),
            "expected the worker to count 9 persisted as the ledger has, got 8",
        ),
        (
            worker(|worker| worker.duplicate += 1),
            "expected the worker to count 4 duplicate as the ledger has, got 5",
        ),
        (
            worker(|worker| worker.conflict += 1),
            "expected the worker to count 2 conflict as the ledger has, got 3",
        ),
        (
            worker(|worker| worker.dead_lettered = 0),
            "expected the worker to count 1 dead_lettered as the ledger has, got 0",
        ),
    ] {
        let difference = books.check().expect_err(expected);
        assert!(
            difference.contains(expected),
            "expected {expected:?}, got {difference:?}"
        );
    }
}

#[test]
fn the_lost_counters_of_a_killed_process_are_no_difference() {
    // Another front end accepted the rest of the readings in the ledger before it was killed.
    let killed_front_end = with(|books| {
        books.front_ends_complete = false;
        let front = books.front_ends.as_mut().unwrap();
        (front.received, front.accepted) = (10, 5);
    });
    assert_eq!(killed_front_end.check(), Ok(()));
    assert_eq!(with(|books| books.worker = None).check(), Ok(()));
    // Without a worker, accepted readings are still in the queue.
    let undrained = with(|books| {
        (books.drained, books.worker) = (false, None);
        let front = books.front_ends.as_mut().unwrap();
        (front.received, front.accepted) = (105, 100);
    });
    assert_eq!(undrained.check(), Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_whose_books_do_not_balance_panics_when_it_is_dropped() {
    let mut site = Site::new();
    site.execute(
        "INSERT INTO batch VALUES
         (gen_random_uuid(), 1, 1, 0, 0, 0, now(), now(), now(), now(), now(), now(), now())",
    )
    .await;
    site.books_limit = Duration::from_millis(100);
    let panic = catch_unwind(AssertUnwindSafe(|| drop(site))).unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(
        message.contains("expected 1 rows in reading as the ledger has, got 0"),
        "{message}"
    );
}
