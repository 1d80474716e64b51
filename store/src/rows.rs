//! Statements of many rows at once.
//!
//! They are prepared, so the number of their rows must be one of few. Those that may name a row twice are filled up to a power of two; the others are cut into such.

use crate::connection::Connection;
use crate::error::StoreError;
use crate::row::Param;

/// A statement of many rows.
pub(crate) struct Rows<'s> {
    pub(crate) head: &'s str,
    pub(crate) row: &'s str,
    pub(crate) between: &'s str,
    pub(crate) tail: &'s str,
}

impl Rows<'_> {
    fn sql(&self, count: usize) -> String {
        let Self { head, row, between, tail } = self;
        let mut sql = String::with_capacity(head.len() + tail.len() + count * (row.len() + between.len()));
        sql.push_str(head);
        for at in 0..count {
            sql.push_str(if at > 0 { between } else { "" });
            sql.push_str(row);
        }
        sql.push_str(tail);
        sql
    }

    /// Runs it for rows of `width` parameters each, in as many pieces as needed; no row twice.
    pub(crate) fn exact(
        &self,
        db: &mut Connection,
        params: &[Param<'_>],
        width: usize,
    ) -> Result<(), StoreError> {
        let mut rest = params;
        while !rest.is_empty() {
            let rows = (rest.len() / width).min(ROWS_MAX);
            // The greatest power of two among them.
            let rows = 1_usize << rows.ilog2();
            let (piece, after) = rest.split_at(rows * width);
            db.execute(&self.sql(rows), piece)?;
            rest = after;
        }
        Ok(())
    }

    /// The parameters, the last row repeated until there are a power of two of them, in pieces with their statements.
    pub(crate) fn filled<'p>(&self, params: &[Param<'p>], width: usize) -> Vec<(String, Vec<Param<'p>>)> {
        params
            .chunks(ROWS_MAX * width)
            .map(|piece| {
                let rows = (piece.len() / width).next_power_of_two();
                let mut all = piece.to_vec();
                let last = piece.get(piece.len() - width..).unwrap_or_default();
                while all.len() < rows * width {
                    all.extend_from_slice(last);
                }
                (self.sql(rows), all)
            })
            .collect()
    }
}

/// Rows of one statement.
const ROWS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: Rows<'_> = Rows { head: "SELECT x FROM t WHERE id IN (", row: "?", between: ", ", tail: ")" };

    #[test]
    fn statements_have_as_many_rows_as_a_power_of_two() {
        let numbers: Vec<Param<'_>> = (0..5_i64).map(Param::Int).collect();
        let filled = IDS.filled(&numbers, 1);
        assert_eq!(filled.len(), 1);
        assert_eq!(filled[0].1.len(), 8);
        assert_eq!(filled[0].1.last(), Some(&Param::Int(4)));
        assert_eq!(filled[0].0.matches('?').count(), 8);
        let many = vec![Param::Int(1); 600];
        let sizes: Vec<usize> = IDS.filled(&many, 1).iter().map(|(_, params)| params.len()).collect();
        assert_eq!(sizes, [256, 256, 128]);
        assert!(IDS.filled(&[], 1).is_empty());
    }
}
