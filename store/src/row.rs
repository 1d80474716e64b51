//! What goes into a statement and what comes out of a query, whatever the engine.

use std::sync::Arc;

use rusqlite::types::{ToSqlOutput, ValueRef};
use schema::{ConvId, Seq, SessionId, UserId};

use crate::error::StoreError;

/// A value that goes into a statement. Made by `into()` from ids, numbers, texts and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Param<'a> {
    /// No value.
    Null,
    /// A number.
    Int(i64),
    /// A text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
}

impl rusqlite::ToSql for Param<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match *self {
            Self::Null => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl From<i64> for Param<'_> {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl<'a> From<&'a str> for Param<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Param<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a> From<&'a [u8; 32]> for Param<'a> {
    fn from(bytes: &'a [u8; 32]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a, T: Into<Self>> From<Option<T>> for Param<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl From<Param<'_>> for mysql::Value {
    fn from(param: Param<'_>) -> Self {
        match param {
            Param::Null => Self::NULL,
            Param::Int(number) => Self::Int(number),
            Param::Text(text) => Self::Bytes(text.as_bytes().to_vec()),
            Param::Bytes(bytes) => Self::Bytes(bytes.to_vec()),
        }
    }
}

/// A value that is nobody's else, for who copies rows without knowing what they mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owned {
    Null,
    Int(i64),
    /// A text or bytes: the column knows which.
    Text(String),
    Bytes(Vec<u8>),
}

impl Owned {
    pub(crate) fn as_param(&self) -> Param<'_> {
        match self {
            Self::Null => Param::Null,
            Self::Int(number) => Param::Int(*number),
            Self::Text(text) => Param::Text(text),
            Self::Bytes(bytes) => Param::Bytes(bytes),
        }
    }

    /// Adds it to a checksum, so that no two lists of values are the same to it.
    pub(crate) fn add_to(&self, sum: &mut sha2::Sha256) {
        use sha2::Digest as _;
        let (kind, bytes): (u8, &[u8]) = match self {
            Self::Null => (0, &[]),
            Self::Int(number) => return sum.update([&[1][..], &number.to_be_bytes()].concat()),
            Self::Text(text) => (2, text.as_bytes()),
            Self::Bytes(bytes) => (2, bytes),
        };
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        sum.update([kind]);
        sum.update(length.to_be_bytes());
        sum.update(bytes);
    }
}

/// A row of a query's result.
#[derive(Debug)]
pub struct Row<'a>(RowOf<'a>);

#[derive(Debug)]
enum RowOf<'a> {
    Sqlite(&'a rusqlite::Row<'a>),
    MySql(&'a mysql::Row),
}

impl<'a> From<&'a rusqlite::Row<'a>> for Row<'a> {
    fn from(row: &'a rusqlite::Row<'a>) -> Self {
        Self(RowOf::Sqlite(row))
    }
}

impl<'a> From<&'a mysql::Row> for Row<'a> {
    fn from(row: &'a mysql::Row) -> Self {
        Self(RowOf::MySql(row))
    }
}

/// What stands in a column. MySQL does not tell a text from bytes; the reader knows what it wants.
#[derive(Clone, Copy)]
enum Cell<'a> {
    Null,
    Int(i64),
    Bytes(&'a [u8]),
    /// What this program never writes: a fraction, a date.
    Other,
}

impl Row<'_> {
    /// The value of column `at`, counted from 0.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it is not of this type.
    pub fn get<T: Column>(&self, at: usize) -> Result<T, StoreError> {
        T::read(self, at)
    }

    /// The value of column `at`, whatever it is. What is UTF-8 is taken for a text.
    pub(crate) fn owned(&self, at: usize) -> Result<Owned, StoreError> {
        Ok(match self.cell(at)? {
            Cell::Null => Owned::Null,
            Cell::Int(number) => Owned::Int(number),
            Cell::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Owned::Text(text.to_owned()),
                Err(_) => Owned::Bytes(bytes.to_vec()),
            },
            Cell::Other => return Err(wrong(self, at, "number, text or bytes")),
        })
    }

    fn cell(&self, at: usize) -> Result<Cell<'_>, StoreError> {
        match self.0 {
            RowOf::Sqlite(row) => Ok(match row.get_ref(at)? {
                ValueRef::Null => Cell::Null,
                ValueRef::Integer(number) => Cell::Int(number),
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Cell::Bytes(bytes),
                ValueRef::Real(_) => Cell::Other,
            }),
            RowOf::MySql(row) => match row.as_ref(at) {
                Some(mysql::Value::NULL) => Ok(Cell::Null),
                Some(mysql::Value::Int(number)) => Ok(Cell::Int(*number)),
                Some(mysql::Value::UInt(number)) => Ok(i64::try_from(*number).map_or(Cell::Other, Cell::Int)),
                Some(mysql::Value::Bytes(bytes)) => Ok(Cell::Bytes(bytes)),
                Some(_) => Ok(Cell::Other),
                None => Err(StoreError::internal(format!("a row has no column {at}"))),
            },
        }
    }

    fn column_name(&self, at: usize) -> String {
        match self.0 {
            RowOf::Sqlite(row) => row.as_ref().column_name(at).unwrap_or("?").to_owned(),
            RowOf::MySql(row) => row
                .columns_ref()
                .get(at)
                .map_or_else(|| "?".to_owned(), |column| column.name_str().into_owned()),
        }
    }
}

/// A type that a column can be read as.
pub trait Column: Sized {
    /// Reads column `at` of `row`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it is not of this type.
    fn read(row: &Row<'_>, at: usize) -> Result<Self, StoreError>;
}

fn wrong(row: &Row<'_>, at: usize, wanted: &str) -> StoreError {
    let column = row.column_name(at);
    StoreError::corrupt(format!("column {column} holds no {wanted}"))
}

impl Column for i64 {
    fn read(row: &Row<'_>, at: usize) -> Result<Self, StoreError> {
        match row.cell(at)? {
            Cell::Int(number) => Ok(number),
            _ => Err(wrong(row, at, "number")),
        }
    }
}

impl Column for u64 {
    fn read(row: &Row<'_>, at: usize) -> Result<Self, StoreError> {
        Self::try_from(i64::read(row, at)?).map_err(|_| wrong(row, at, "count"))
    }
}

impl Column for u32 {
    fn read(row: &Row<'_>, at: usize) -> Result<Self, StoreError> {
        Self::try_from(i64::read(row, at)?).map_err(|_| wrong(row, at, "small count"))
    }
}

impl Column for String {
    fn read(row: &Row<'_>, at: usize) -> Result<Self, StoreError> {
        text(row, at).map(Self::from)
    }
}

impl Column for Arc<str> {
    fn read(row: &Row<'_>, at: usize) -> Result<Self, StoreError> {
        text(row, at).map(Self::from)
    }
}

fn text<'a>(row: &'a Row<'_>, at: usize) -> Result<&'a str, StoreError> {
    match row.cell(at)? {
        Cell::Bytes(bytes) => std::str::from_utf8(bytes).map_err(|_| wrong(row, at, "UTF-8")),
        _ => Err(wrong(row, at, "text")),
    }
}

impl Column for Vec<u8> {
    fn read(row: &Row<'_>, at: usize) -> Result<Self, StoreError> {
        match row.cell(at)? {
            Cell::Bytes(bytes) => Ok(bytes.to_vec()),
            _ => Err(wrong(row, at, "bytes")),
        }
    }
}

impl Column for [u8; 32] {
    fn read(row: &Row<'_>, at: usize) -> Result<Self, StoreError> {
        match row.cell(at)? {
            Cell::Bytes(bytes) => bytes.try_into().map_err(|_| wrong(row, at, "hash")),
            _ => Err(wrong(row, at, "bytes")),
        }
    }
}

impl<T: Column> Column for Option<T> {
    fn read(row: &Row<'_>, at: usize) -> Result<Self, StoreError> {
        match row.cell(at)? {
            Cell::Null => Ok(None),
            _ => T::read(row, at).map(Some),
        }
    }
}

macro_rules! id_column {
    ($($id:ty),+) => {$(
        impl From<$id> for Param<'_> {
            fn from(id: $id) -> Self {
                Self::Int(id.as_i64())
            }
        }

        impl Column for $id {
            fn read(row: &Row<'_>, at: usize) -> Result<Self, StoreError> {
                Self::from_i64(i64::read(row, at)?).ok_or_else(|| wrong(row, at, stringify!($id)))
            }
        }
    )+};
}

id_column!(UserId, ConvId, SessionId, Seq);
