//! Lines of a table whose rows arrive one after the other.

/// The widths of the columns: those of the header and of the rows that were there at first. A
/// longer cell of a later row moves the rest of its line to the right.
#[derive(Debug)]
pub(crate) struct Table {
    widths: Vec<usize>,
}

impl Table {
    /// A table for these rows.
    pub(crate) fn new(header: &[&str], rows: &[Vec<String>]) -> Self {
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0).max(header[column].len())
        };
        Self {
            widths: (0..header.len()).map(width).collect(),
        }
    }

    /// A line with these cells.
    pub(crate) fn line<T: AsRef<str>>(&self, cells: &[T]) -> String {
        let mut line = String::new();
        for (cell, &width) in cells.iter().zip(&self.widths) {
            line.push_str(&format!("{:<width$}  ", cell.as_ref()));
        }
        line.truncate(line.trim_end().len());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            ["1".to_owned(), "é".to_owned()],
            ["22222".into(), "bb".into()],
        ];
        let rows = rows.map(Vec::from);
        let table = Table::new(&["ID", "N"], &rows);
        assert_eq!(table.line(&["ID", "N"]), "ID     N");
        assert_eq!(table.line(&rows[0]), "1      é");
        assert_eq!(table.line(&rows[1]), "22222  bb");
    }
}
