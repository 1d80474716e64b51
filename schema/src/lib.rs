//! Every shape that crosses a boundary: the client protocol's messages and limits, ids, and the SQL of both engines.
//!
//! This crate opens no socket, reads no clock and holds no state.

pub mod error;
pub mod friend;
pub mod group;
pub mod ids;
pub mod limits;
pub mod login;
pub mod reply;
pub mod request;
pub mod sql;
pub mod text;

pub use error::{ByeCode, ErrorCode};
pub use ids::{ConvId, Seq, SessionId, UserId};
