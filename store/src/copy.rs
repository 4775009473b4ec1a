//! Rows in PostgreSQL's binary COPY format.
//!
//! In: rows. Out: the bytes of `COPY … FROM STDIN (FORMAT binary)` as the manual page of COPY
//! defines them, in chunks, so that a large transaction is never in memory a second time. The
//! errors of a COPY are returned when it is finished.

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::SinkExt as _;
use schema::clock::POSTGRES_EPOCH;
use tokio_postgres::{Client, Error};

use crate::rows::Row;

/// Bytes that are written to the connection at a time.
const CHUNK: usize = 128 * 1024;
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// Longest row: three or four fields with their lengths.
const MAX_ROW: usize = 2 + 4 * 4 + 4 + 8 + 8 + 4;

/// The table that rows are copied into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// `reading (series_id, measured_at, value)`.
    Reading,
    /// The staging table, which also has the index of each row among those that are copied.
    Staging,
}

impl Target {
    const fn statement(self) -> &'static str {
        match self {
            Self::Reading => {
                "COPY reading (series_id, measured_at, value) FROM STDIN (FORMAT binary)"
            }
            Self::Staging => {
                "COPY staging (series_id, measured_at, value, row) FROM STDIN (FORMAT binary)"
            }
        }
    }
}

/// Copies rows into a table.
///
/// # Errors
/// PostgreSQL's error about the rows or the connection; no row has been stored.
pub(crate) async fn copy_in(client: &Client, target: Target, rows: &[Row]) -> Result<(), Error> {
    let sink = client.copy_in::<_, Bytes>(target.statement()).await?;
    let mut sink = std::pin::pin!(sink);
    let mut buffer = BytesMut::with_capacity(CHUNK + MAX_ROW);
    header(&mut buffer);
    for (index, row) in rows.iter().enumerate() {
        encode(&mut buffer, target, row, index);
        if buffer.len() >= CHUNK {
            let full = std::mem::replace(&mut buffer, BytesMut::with_capacity(CHUNK + MAX_ROW));
            sink.feed(full.freeze()).await?;
        }
    }
    buffer.put_i16(-1);
    sink.send(buffer.freeze()).await?;
    sink.finish().await?;
    Ok(())
}

pub(crate) fn header(buffer: &mut BytesMut) {
    buffer.put_slice(SIGNATURE);
    buffer.put_i32(0); // Flags.
    buffer.put_i32(0); // Length of the header's extension.
}

fn encode(buffer: &mut BytesMut, target: Target, row: &Row, index: usize) {
    buffer.put_i16(if target == Target::Staging { 4 } else { 3 });
    buffer.put_i32(4);
    buffer.put_i32(row.series_id);
    buffer.put_i32(8);
    buffer.put_i64(row.measured_at - POSTGRES_EPOCH);
    buffer.put_i32(8);
    buffer.put_f64(row.value);
    if target == Target::Staging {
        buffer.put_i32(4);
        buffer.put_u32(index as u32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by hand from "Binary Format" on the manual page of COPY.
    #[test]
    fn a_row_is_encoded_as_the_manual_defines() {
        let row = Row {
            series_id: 258,
            batch: 0,
            measured_at: POSTGRES_EPOCH + 1,
            value: 1.5,
        };
        let mut buffer = BytesMut::new();
        encode(&mut buffer, Target::Staging, &row, 3);
        let expected = [
            &[0, 4][..],
            &[0, 0, 0, 4, 0, 0, 1, 2],
            &[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1],
            &[0, 0, 0, 8, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0],
            &[0, 0, 0, 4, 0, 0, 0, 3],
        ]
        .concat();
        assert_eq!(buffer, expected);
        assert!(buffer.len() <= MAX_ROW);
    }
}
