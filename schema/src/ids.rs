//! The ids that name things across boundaries: newtypes, so that no function takes two bare integers.

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::limits::ID_MAX;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// The id with this number, or `None` outside `1..=ID_MAX`.
            #[must_use]
            pub const fn new(number: u64) -> Option<Self> {
                if number >= 1 && number <= ID_MAX { Some(Self(number)) } else { None }
            }

            /// The id as the number that stands in JSON and in tables.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The id as SQL engines hold it. Never negative, since `ID_MAX` is below 2^63.
            #[must_use]
            pub const fn as_i64(self) -> i64 {
                self.0.cast_signed()
            }

            /// The id read from a table, or `None` where the column holds no valid id.
            #[must_use]
            pub fn from_i64(number: i64) -> Option<Self> {
                u64::try_from(number).ok().and_then(Self::new)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let number = u64::deserialize(deserializer)?;
                Self::new(number).ok_or_else(|| de::Error::custom(concat!($what, " is out of range")))
            }
        }
    };
}

id!(
    /// A registered user.
    UserId,
    "the user id"
);
id!(
    /// A conversation: a pair of users, later also a group. Shown to clients as `conv`.
    ConvId,
    "the conv id"
);
id!(
    /// One live logged-in connection. Unique over all nodes and all time, for it comes from the id blocks of the store.
    SessionId,
    "the session id"
);

/// A place in a conversation. Entries are numbered from 1; as a cursor, 0 means "nothing yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Seq(u64);

impl Seq {
    /// Before the first entry.
    pub const ZERO: Self = Self(0);

    /// Beyond every entry.
    pub const MAX: Self = Self(ID_MAX);

    /// The place with this number, or `None` above `ID_MAX`.
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        if number <= ID_MAX { Some(Self(number)) } else { None }
    }

    /// The number that stands in JSON and in tables.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The next place. Saturates at the end of the number range, which no conversation reaches.
    #[must_use]
    pub const fn next(self) -> Self {
        if self.0 < ID_MAX { Self(self.0 + 1) } else { self }
    }

    /// The place before; the one before 0 is 0.
    #[must_use]
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The place as SQL engines hold it.
    #[must_use]
    pub const fn as_i64(self) -> i64 {
        self.0.cast_signed()
    }

    /// The place read from a table, or `None` where the column holds no valid one.
    #[must_use]
    pub fn from_i64(number: i64) -> Option<Self> {
        u64::try_from(number).ok().and_then(Self::new)
    }
}

impl std::fmt::Display for Seq {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Seq {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(deserializer)?;
        Self::new(number).ok_or_else(|| de::Error::custom("the seq is out of range"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_refused_outside_their_range() {
        assert_eq!(UserId::new(0), None);
        assert_eq!(UserId::new(ID_MAX).map(UserId::get), Some(9_007_199_254_740_991));
        assert_eq!(UserId::new(ID_MAX + 1), None);
        assert!(serde_json::from_str::<UserId>("0").is_err());
        assert!(serde_json::from_str::<UserId>("-1").is_err());
        assert!(serde_json::from_str::<UserId>("1.0").is_err());
        assert!(serde_json::from_str::<UserId>("9007199254740992").is_err());
        assert!(serde_json::from_str::<UserId>("9007199254740991").is_ok());
    }

    #[test]
    fn a_seq_may_be_zero_and_saturates() {
        assert_eq!(serde_json::from_str::<Seq>("0").unwrap(), Seq::ZERO);
        assert_eq!(Seq::ZERO.prev(), Seq::ZERO);
        assert_eq!(Seq::new(ID_MAX).unwrap().next().get(), ID_MAX);
    }
}
