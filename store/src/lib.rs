//! The tables and the only way to them: connections, DAOs, and the commit pipeline that makes many writes durable at once.
//!
//! [`Store`] owns the threads. On a file, exactly one writer thread owns the only writing connection; every write is a job in one of
//! its batches, and a batch is one transaction. Readers have connections of their own. Results come back by callback on
//! a store thread, so the callbacks only hand over and return.
//!
//! [`Connection`] is the same over SQLite and over MySQL or MariaDB, and so are the DAOs. On a server, writers are several: each conversation is always the same one's,
//! and a batch is few statements of many rows; all else is a transaction of its own. Connections come from a [`pool::ConnectionPool`].

mod backlog;
mod backup;
mod batch;
mod checker;
mod checkpoint;
mod config;
mod connection;
mod cursors;
pub mod dao;
mod entity;
mod error;
mod heads;
mod import;
mod job;
mod lock;
mod mysql_batch;
mod mysql_config;
mod mysql_engine;
mod mysql_manager;
mod mysql_writer;
mod pipeline;
pub mod pool;
mod queues;
mod reader;
mod row;
mod rows;
mod sqlite;
mod start;
mod store;
mod tell;
mod tidy;
mod writer;

pub use backup::backup;
pub use checker::{DbCheck, DbChecker, DbPlan};
pub use config::DbConfig;
pub use connection::Connection;
pub use entity::{
    Body, Change, Conversation, Credentials, Entry, Event, Friend, FriendState, Group, Invitation, Kind,
    Listed, ListedGroup, Mark, Member, Members, Page, Position, Role, Span, TokenHash, TokenRow, User,
};
pub use error::{Denied, StoreError, UnavailableKind};
pub use import::import;
pub use mysql_config::{Durability, MySqlConfig, MySqlSection, Secret, Tls};
pub use mysql_manager::MySqlManager;
pub use pipeline::{
    Audience, CommitSink, CommittedBatch, CursorError, CursorOutcome, CursorWrite, SendError, SendOutcome,
    SendRequest, Sent, Ticket,
};
pub use row::{Column, Param, Row};
pub use store::{Store, StoreStats};
