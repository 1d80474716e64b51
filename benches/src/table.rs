//! A table for people: the first column to the left, the others to the right, numbers with thousands set apart.

use std::fmt;

/// Rows of cells, as wide as they need to be.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with this first row.
    #[must_use]
    pub fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths: Vec<usize> = Vec::new();
        for row in &self.rows {
            for (at, cell) in row.iter().enumerate() {
                let width = cell.chars().count();
                match widths.get_mut(at) {
                    Some(widest) => *widest = width.max(*widest),
                    None => widths.push(width),
                }
            }
        }
        for row in &self.rows {
            let mut line = String::new();
            for (at, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                if at == 0 {
                    line += &format!("{cell:width$}");
                } else {
                    line += &format!("  {cell:>width$}");
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A number as people read it: three significant digits below a thousand, thousands set apart above.
#[must_use]
pub fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 999.5 {
        let digits = format!("{:.0}", size.round());
        let mut text = String::new();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        return if value < 0.0 { format!("-{text}") } else { text };
    }
    match size {
        _ if size == 0.0 => "0".to_owned(),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["what", "value"]);
        table.row(["a long name".to_owned(), "1".to_owned()]);
        assert_eq!(table.to_string(), "what         value\na long name      1\n");
    }

    #[test]
    fn numbers_are_short_and_exact_enough() {
        let shown = [0.0, 0.00123, 1.5, 45.67, 456.7, 999.6, 12_345.6, 1_234_567.0, -4_321.0].map(number);
        let wanted = ["0", "0.0012", "1.50", "45.7", "457", "1,000", "12,346", "1,234,567", "-4,321"];
        assert_eq!(shown, wanted);
    }
}
