//! Rows: the readings of a transaction, sorted by the table's key, each key once.
//!
//! In: batches, in the order in which they were received. Out: rows to store, and the readings that
//! are not to be stored: repeats of a key within the transaction (the first one is kept, and the
//! others are compared with what is stored in the end) and readings that the table cannot hold.
//! There is no I/O and no failure: every reading is counted exactly once.

use std::collections::{HashMap, HashSet};

use schema::Batch;
use schema::Rejection;
use schema::reading::{Micros, SeriesId, check_calendar, check_value};
use tokio_postgres::Error;

/// A reading as a row of the table.
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

/// A reading whose key exists with another value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conflict {
    /// The reading.
    pub row: Row,
    /// The stored value, which is kept.
    pub stored: f64,
}

/// A reading that the table refuses.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// The reading.
    pub row: Row,
    /// Stable code: a [`Rejection::code`], `deleted_series`, or `sqlstate_` with PostgreSQL's error
    /// code.
    pub code: String,
    /// The reason, for people.
    pub detail: String,
}

/// What became of the readings of one batch. The sum of the four is the size of the batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchCounts {
    /// New rows.
    pub stored: u32,
    /// Already stored with the same value.
    pub duplicates: u32,
    /// Already stored with another value.
    pub conflicts: u32,
    /// Refused by the table.
    pub dead_letters: u32,
}

/// Everything that a transaction has to write, and the counts of it.
#[derive(Debug, Default)]
pub struct AssembledRows {
    /// Rows in the order of their key, each key once.
    pub rows: Vec<Row>,
    /// Conflicts found so far.
    pub conflicts: Vec<Conflict>,
    /// Dead letters found so far.
    pub dead_letters: Vec<DeadLetter>,
    /// One entry per batch. Rows count as stored until PostgreSQL reports otherwise.
    pub counts: Vec<BatchCounts>,
    /// Indexes of the rows of which PostgreSQL has reported otherwise, with the value that their key
    /// had already.
    not_stored: HashMap<usize, Option<f64>>,
    /// Readings behind the first one of their key. They are not counted yet, because they are
    /// compared with what is stored.
    repeats: Vec<Row>,
}

/// Assembles the batches of one transaction.
pub fn assemble<'a>(batches: impl ExactSizeIterator<Item = &'a Batch>) -> AssembledRows {
    let mut assembled = AssembledRows {
        counts: vec![BatchCounts::default(); batches.len()],
        ..AssembledRows::default()
    };
    for (index, batch) in batches.enumerate() {
        for reading in batch.readings() {
            let row = Row {
                series_id: reading.series_id,
                batch: index as u32,
                measured_at: reading.measured_at,
                value: reading.value,
            };
            // The front end has checked both, but other producers can write to the queue, and
            // PostgreSQL interprets the extreme times as infinities.
            match check_value(row.value).and_then(|()| check_calendar(row.measured_at)) {
                Ok(()) => assembled.rows.push(row),
                Err(rejection) => assembled.reject(row, rejection),
            }
        }
    }
    // The sort is stable, so that the reading that was received first comes first.
    assembled.rows.sort_by_key(Row::key);
    assembled.keep_first_of_each_key();
    for row in &assembled.rows {
        assembled.counts[row.batch as usize].stored += 1;
    }
    assembled
}

impl AssembledRows {
    fn reject(&mut self, row: Row, rejection: Rejection) {
        self.counts[row.batch as usize].dead_letters += 1;
        let (code, detail) = (rejection.code().to_owned(), rejection.to_string());
        self.dead_letters.push(DeadLetter { row, code, detail });
    }

    /// Records that the rows of these series are not stored, because the series were deleted.
    pub(crate) fn reject_deleted(&mut self, deleted: &HashSet<SeriesId>) {
        let is_deleted = |row: &mut Row| deleted.contains(&row.series_id);
        let rows: Vec<Row> = self.rows.extract_if(.., is_deleted).collect();
        for row in &rows {
            self.counts[row.batch as usize].stored -= 1;
        }
        let repeats = self.repeats.extract_if(.., is_deleted);
        for row in rows.into_iter().chain(repeats) {
            self.counts[row.batch as usize].dead_letters += 1;
            self.dead_letters.push(DeadLetter {
                row,
                code: "deleted_series".into(),
                detail: "the device or the series was deleted".into(),
            });
        }
    }

    /// Compares the repeats of each key with its stored value, and counts them.
    pub(crate) fn settle_repeats(&mut self) {
        for row in std::mem::take(&mut self.repeats) {
            let Ok(first) = self.rows.binary_search_by_key(&row.key(), Row::key) else {
                continue;
            };
            let existing = self.not_stored.get(&first).copied().flatten();
            let stored = existing.unwrap_or(self.rows[first].value);
            self.count_existing(row, stored);
        }
    }

    /// Counts a reading whose key has a value already.
    fn count_existing(&mut self, row: Row, stored: f64) {
        let counts = &mut self.counts[row.batch as usize];
        if row.value == stored {
            counts.duplicates += 1;
        } else {
            counts.conflicts += 1;
            self.conflicts.push(Conflict { row, stored });
        }
    }

    /// The rows that are stored.
    pub(crate) fn stored(&self) -> impl Iterator<Item = &Row> {
        let rows = self.rows.iter().enumerate();
        rows.filter_map(|(index, row)| (!self.not_stored.contains_key(&index)).then_some(row))
    }

    /// Records that the key of a row existed, with this value.
    pub(crate) fn mark_existing(&mut self, index: usize, stored: f64) {
        self.not_stored.insert(index, Some(stored));
        let row = self.rows[index];
        self.counts[row.batch as usize].stored -= 1;
        self.count_existing(row, stored);
    }

    /// Records that PostgreSQL refuses a row.
    pub(crate) fn mark_refused(&mut self, index: usize, error: &Error) {
        self.not_stored.insert(index, None);
        let row = self.rows[index];
        let counts = &mut self.counts[row.batch as usize];
        counts.stored -= 1;
        counts.dead_letters += 1;
        let (code, detail) = match error.as_db_error() {
            Some(database) => (database.code().code(), database.message().to_owned()),
            None => ("unknown", error.to_string()),
        };
        self.dead_letters.push(DeadLetter {
            row,
            code: format!("sqlstate_{code}"),
            detail,
        });
    }

    fn keep_first_of_each_key(&mut self) {
        let repeats = &mut self.repeats;
        self.rows.dedup_by(|row, first| {
            let is_repeat = row.key() == first.key();
            if is_repeat {
                repeats.push(*row);
            }
            is_repeat
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
    fn the_first_reading_of_a_key_is_kept_and_the_others_are_duplicates_or_conflicts() {
        let batches = [
            batch(&[(2, 5, 1.0), (1, 9, 3.0)]),
            batch(&[(2, 5, 1.0), (2, 5, 7.0), (1, 8, f64::NAN)]),
        ];
        let mut assembled = assemble(batches.iter());
        assembled.settle_repeats();
        let keys: Vec<_> = assembled
            .rows
            .iter()
            .map(|row| (row.key(), row.value, row.batch))
            .collect();
        assert_eq!(keys, [((1, 9), 3.0, 0), ((2, 5), 1.0, 0)]);
        assert_eq!(
            assembled.counts[0],
            BatchCounts {
                stored: 2,
                ..BatchCounts::default()
            }
        );
        assert_eq!(
            assembled.counts[1],
            BatchCounts {
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
    fn times_that_postgresql_interprets_as_infinities_are_dead_letters() {
        let assembled = assemble([batch(&[(1, i64::MIN, 1.0), (1, i64::MAX, 1.0)])].iter());
        assert_eq!((assembled.rows.len(), assembled.dead_letters.len()), (0, 2));
    }

    proptest! {
        #[test]
        fn every_reading_is_counted_once(
            batches in prop::collection::vec(
                prop::collection::vec((0..3i32, 0..4i64, 0..3u8), 0..30),
                0..5,
            )
        ) {
            let to_row = |&(series, at, value)| (series, at, f64::from(value));
            let batches: Vec<Batch> = batches
                .iter()
                .map(|rows: &Vec<(i32, i64, u8)>| {
                    batch(&rows.iter().map(to_row).collect::<Vec<_>>())
                })
                .collect();
            let mut assembled = assemble(batches.iter());
            assembled.settle_repeats();
            for (batch, counts) in batches.iter().zip(&assembled.counts) {
                let BatchCounts {
                    stored,
                    duplicates,
                    conflicts,
                    dead_letters,
                } = counts;
                let sum = stored + duplicates + conflicts + dead_letters;
                prop_assert_eq!(sum as usize, batch.len());
            }
            prop_assert!(assembled.rows.is_sorted_by(|a, b| a.key() < b.key()));
        }
    }
}
