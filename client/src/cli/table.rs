//! Columns for people. Programs read `--json`.

use std::fmt;

use unicode_width::UnicodeWidthStr;

use crate::untrusted::Printable;

/// Blanks between columns.
const GAP: usize = 2;

/// Rows of cells under a heading, each column as wide as its widest cell. `Display` draws it, without a border and
/// without blanks at the end of lines; a table without rows draws nothing.
#[derive(Debug, Clone)]
pub struct Table {
    rows: Vec<Vec<String>>,
    columns: usize,
}

impl Table {
    /// A table with these headings.
    pub fn new(headings: &[&str]) -> Self {
        let heading = headings.iter().map(|text| text.to_uppercase()).collect();
        Self { rows: vec![heading], columns: headings.len() }
    }

    /// Adds a row. Cells beyond the headings are left out, missing ones are empty; each is made one printable line.
    pub fn row<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) {
        let mut row: Vec<String> = cells
            .into_iter()
            .take(self.columns)
            .map(|cell| Printable::line(cell.as_ref()).to_string())
            .collect();
        row.resize(self.columns, String::new());
        self.rows.push(row);
    }

    /// Whether no row was added.
    pub const fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return Ok(());
        }
        let width =
            |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max();
        let widths: Vec<usize> = (0..self.columns).map(|column| width(column).unwrap_or_default()).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.push_str(&" ".repeat(width.saturating_sub(cell.width()) + GAP));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_the_script() {
        let mut table = Table::new(&["chat", "new", "state"]);
        table.row(["Mira", "12", "verified"]);
        table.row(["日本語", "3", ""]);
        table.row(["evil\u{1b}[2J\nname", "0", "blocked", "too many"]);
        assert_eq!(
            table.to_string(),
            "CHAT                 NEW  STATE\n\
             Mira                 12   verified\n\
             日本語               3\n\
             evil\\u{1b}[2J\\nname  0    blocked\n"
        );
    }

    #[test]
    fn an_empty_table_is_nothing() {
        let table = Table::new(&["chat"]);
        assert!(table.is_empty());
        assert_eq!(table.to_string(), "");
    }
}
