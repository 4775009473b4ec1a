//! Lines and columns of a body, for people.

use std::fmt;

/// A place in a body. Both count from 1, and columns are characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    line: usize,
    column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Finds the positions of ascending offsets, in one pass over the body.
#[derive(Debug)]
pub(super) struct Positions<'a> {
    body: &'a [u8],
    at: usize,
    position: Position,
}

impl<'a> Positions<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self {
            body,
            at: 0,
            position: Position { line: 1, column: 1 },
        }
    }

    /// The position of an offset that is not before the last one.
    pub(super) fn of(&mut self, offset: usize) -> Position {
        let passed = self.body.get(self.at..offset).unwrap_or_default();
        for &byte in passed {
            match byte {
                b'\n' => {
                    self.position.line += 1;
                    self.position.column = 1;
                }
                // The second byte of a character, or a further one.
                0x80..0xc0 => {}
                _ => self.position.column += 1,
            }
        }
        self.at = self.at.max(offset);
        self.position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_characters_are_counted_from_one() {
        let mut positions = Positions::new("ab\n\näb".as_bytes());
        let positions = [0, 1, 3, 4, 6, 7].map(|offset| positions.of(offset).to_string());
        assert_eq!(
            positions,
            [
                "line 1, column 1",
                "line 1, column 2",
                "line 2, column 1",
                "line 3, column 1",
                "line 3, column 2",
                "line 3, column 3"
            ]
        );
    }
}
