//! The queries, one struct per table or purpose, each borrowing a connection inside a store job.

mod conversation;
mod cursor;
mod friend;
mod group;
mod id;
mod message;
mod offline;
mod sent;
mod token;
mod user;

pub use conversation::ConversationDao;
pub use cursor::CursorDao;
pub use friend::{FriendDao, Requested};
pub use group::GroupDao;
pub use id::{IdDao, IdName};
pub use message::{MessageDao, PageLimit};
pub use offline::OfflineMessageDao;
pub use sent::SentDao;
pub use token::TokenDao;
pub use user::{UserDao, disabled, is_disabled};

#[cfg(test)]
mod plan_tests;
