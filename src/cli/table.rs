//! Plain-text tables: columns padded to their widest cell, numbers to the right.

use std::fmt::Write;

/// A table under construction.
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

struct Column {
    title: String,
    align: Align,
}

/// Where the cells of a column stand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

impl Table {
    /// A table with these column titles.
    pub fn new(columns: &[(&str, Align)]) -> Self {
        let columns = columns.iter().map(|&(title, align)| Column { title: title.to_owned(), align }).collect();
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row, one cell per column.
    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// The table as lines, the titles first and a rule below them.
    pub fn render(&self) -> String {
        let widths: Vec<usize> = self.columns.iter().enumerate().map(|(i, column)| self.width(i, column)).collect();
        let mut out = String::new();
        self.line(&mut out, &widths, |i| &self.columns[i].title);
        let rule: Vec<String> = widths.iter().map(|&w| "─".repeat(w)).collect();
        self.line(&mut out, &widths, |i| &rule[i]);
        for row in &self.rows {
            self.line(&mut out, &widths, |i| &row[i]);
        }
        out
    }

    fn width(&self, i: usize, column: &Column) -> usize {
        let cells = self.rows.iter().map(|row| row[i].chars().count());
        cells.chain([column.title.chars().count()]).max().unwrap_or(0)
    }

    fn line<'a>(&self, out: &mut String, widths: &[usize], cell: impl Fn(usize) -> &'a str) {
        let mut line = String::new();
        for (i, &width) in widths.iter().enumerate() {
            let text = cell(i);
            let _ = match self.columns[i].align {
                Align::Left => write!(line, "{text:<width$}  "),
                Align::Right => write!(line, "{text:>width$}  "),
            };
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

/// `bytes` with thousands separated by commas.
pub fn grouped(bytes: u64) -> String {
    let digits = bytes.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_067_108, "1,067,108")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&[("name", Align::Left), ("n", Align::Right)]);
        table.row(vec!["a".into(), "10".into()]);
        table.row(vec!["longer".into(), "7".into()]);
        assert_eq!(table.render(), "name     n\n──────  ──\na       10\nlonger   7\n");
    }
}
