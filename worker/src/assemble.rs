//! Assembling: the batches of one transaction into rows, sorted by the table's key, each key once.
//!
//! In: batches, in the order in which they were taken. Out: rows to store, and those readings that need not be: repeats of
//! a key within the transaction (the first stays) and readings that no table row can hold. No I/O, and no failure: every
//! reading comes out exactly once.

use schema::Batch;
use schema::Rejection;
use schema::reading::{Micros, SeriesId, check_calendar, check_value};

/// A reading on its way into the table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// Part of the key.
    pub series_id: SeriesId,
    /// Index of its batch in the transaction.
    pub batch: u32,
    /// Part of the key.
    pub measured_at: Micros,
    /// The value.
    pub value: f64,
}

impl Row {
    /// The table's key.
    pub fn key(&self) -> (SeriesId, Micros) {
        (self.series_id, self.measured_at)
    }
}

/// A reading that met another value under its key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conflict {
    /// What was offered.
    pub row: Row,
    /// What is stored, and stays.
    pub stored: f64,
}

/// A reading that the table refuses.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// The reading.
    pub row: Row,
    /// Stable code: a [`Rejection::code`], or `sqlstate_` with PostgreSQL's error code.
    pub code: String,
    /// In words.
    pub detail: String,
}

/// How the readings of one batch ended. The four sum up to the batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tallied {
    /// New rows.
    pub stored: u32,
    /// Stored already with the same value.
    pub duplicates: u32,
    /// Stored already with another value.
    pub conflicts: u32,
    /// Refused by the table.
    pub dead_letters: u32,
}

/// Everything that a transaction has to write, and the books of it.
#[derive(Debug, Default)]
pub struct Assembled {
    /// Rows in the order of their key, each key once.
    pub rows: Vec<Row>,
    /// Conflicts found so far.
    pub conflicts: Vec<Conflict>,
    /// Dead letters found so far.
    pub dead_letters: Vec<DeadLetter>,
    /// One entry a batch. Rows count as stored until PostgreSQL says otherwise.
    pub tallies: Vec<Tallied>,
}

/// Assembles the batches of one transaction.
pub fn assemble<'a>(batches: impl ExactSizeIterator<Item = &'a Batch>) -> Assembled {
    let mut assembled = Assembled {
        tallies: vec![Tallied::default(); batches.len()],
        ..Assembled::default()
    };
    for (index, batch) in batches.enumerate() {
        for reading in batch.readings() {
            let row = Row {
                series_id: reading.series_id,
                batch: index as u32,
                measured_at: reading.measured_at,
                value: reading.value,
            };
            // The front end has checked both, but the queue is open to other producers, and PostgreSQL would take the
            // outermost times for infinities.
            match check_value(row.value).and_then(|()| check_calendar(row.measured_at)) {
                Ok(()) => assembled.rows.push(row),
                Err(rejection) => assembled.refuse(row, rejection),
            }
        }
    }
    // Stable, so that of one key the reading that was taken first comes first.
    assembled.rows.sort_by_key(Row::key);
    assembled.keep_first_of_each_key();
    for row in &assembled.rows {
        assembled.tallies[row.batch as usize].stored += 1;
    }
    assembled
}

impl Assembled {
    fn refuse(&mut self, row: Row, rejection: Rejection) {
        self.tallies[row.batch as usize].dead_letters += 1;
        let (code, detail) = (rejection.code().to_owned(), rejection.to_string());
        self.dead_letters.push(DeadLetter { row, code, detail });
    }

    fn keep_first_of_each_key(&mut self) {
        let (tallies, conflicts) = (&mut self.tallies, &mut self.conflicts);
        self.rows.dedup_by(|row, first| {
            if row.key() != first.key() {
                return false;
            }
            let tally = &mut tallies[row.batch as usize];
            if row.value == first.value {
                tally.duplicates += 1;
            } else {
                tally.conflicts += 1;
                conflicts.push(Conflict {
                    row: *row,
                    stored: first.value,
                });
            }
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schema::Reading;

    use super::*;

    fn batch(rows: &[(SeriesId, Micros, f64)]) -> Batch {
        let mut batch = Batch::new();
        for &(series_id, measured_at, value) in rows {
            batch.push(Reading {
                series_id,
                measured_at,
                value,
            });
        }
        batch
    }

    #[test]
    fn of_one_key_the_first_stays_and_the_others_are_told_apart() {
        let batches = [
            batch(&[(2, 5, 1.0), (1, 9, 3.0)]),
            batch(&[(2, 5, 1.0), (2, 5, 7.0), (1, 8, f64::NAN)]),
        ];
        let assembled = assemble(batches.iter());
        let keys: Vec<_> = assembled
            .rows
            .iter()
            .map(|row| (row.key(), row.value, row.batch))
            .collect();
        assert_eq!(keys, [((1, 9), 3.0, 0), ((2, 5), 1.0, 0)]);
        assert_eq!(
            assembled.tallies[0],
            Tallied {
                stored: 2,
                ..Tallied::default()
            }
        );
        assert_eq!(
            assembled.tallies[1],
            Tallied {
                duplicates: 1,
                conflicts: 1,
                dead_letters: 1,
                stored: 0
            }
        );
        assert_eq!(
            (
                assembled.conflicts[0].row.value,
                assembled.conflicts[0].stored
            ),
            (7.0, 1.0)
        );
        assert_eq!(assembled.dead_letters[0].code, "value_not_finite");
    }

    #[test]
    fn times_that_postgresql_takes_for_infinities_are_refused() {
        let assembled = assemble([batch(&[(1, i64::MIN, 1.0), (1, i64::MAX, 1.0)])].iter());
        assert_eq!((assembled.rows.len(), assembled.dead_letters.len()), (0, 2));
    }

    proptest! {
        #[test]
        fn every_reading_comes_out_once(
            rows in prop::collection::vec(prop::collection::vec((0..3i32, 0..4i64, 0..3u8), 0..30), 0..5)
        ) {
            let batches: Vec<Batch> = rows
                .iter()
                .map(|rows| {
                    let rows: Vec<_> = rows.iter().map(|&(series, at, value)| (series, at, f64::from(value))).collect();
                    batch(&rows)
                })
                .collect();
            let assembled = assemble(batches.iter());
            for (batch, tally) in batches.iter().zip(&assembled.tallies) {
                let sum = tally.stored + tally.duplicates + tally.conflicts + tally.dead_letters;
                prop_assert_eq!(sum as usize, batch.len());
            }
            prop_assert!(assembled.rows.is_sorted_by(|a, b| a.key() < b.key()));
        }
    }
}
