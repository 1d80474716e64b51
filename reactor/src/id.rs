//! The names of connections: plain values that any thread may hold, and that reach nobody once the connection is gone.

use std::fmt;

use crate::slab::Key;

/// The name of a connection: loop, service, slot and generation.
///
/// A name is a value, not a reference. It stays valid as a value for ever, but after its connection was closed it reaches nobody:
/// the slot's next tenant has another generation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    /// Loop and service in one number, so that names compare quickly.
    owner: u32,
    key: Key,
}

impl ConnId {
    /// No connection's name: no slot has this number.
    pub(crate) const NOBODY: Self = Self { owner: u32::MAX, key: Key { slot: u32::MAX, generation: 0 } };

    pub(crate) const fn new(owner: u32, key: Key) -> Self {
        Self { owner, key }
    }

    /// What the names of all connections of a service have in common.
    pub(crate) const fn owner_of(loop_index: u16, service: u8) -> u32 {
        ((loop_index as u32) << 16) | service as u32
    }

    pub(crate) const fn owner(self) -> u32 {
        self.owner
    }

    pub(crate) const fn key(self) -> Key {
        self.key
    }

    /// The index of the loop that the connection lives on.
    #[must_use]
    pub const fn loop_index(self) -> u16 {
        (self.owner >> 16) as u16
    }

    /// The index of the connection's service on its loop.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    pub const fn service(self) -> u16 {
        self.owner as u16
    }

    /// The name as two numbers, for code that carries it without knowing this crate. [`ConnId::from_parts`] is the way back.
    #[must_use]
    pub const fn to_parts(self) -> (u32, u64) {
        (self.owner, ((self.key.generation as u64) << 32) | self.key.slot as u64)
    }

    /// The name that [`ConnId::to_parts`] took apart. Any other numbers give a name that reaches nobody.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "takes the halves of the numbers apart again")]
    pub const fn from_parts(owner: u32, token: u64) -> Self {
        Self { owner, key: Key { slot: token as u32, generation: (token >> 32) as u32 } }
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}", self.loop_index(), self.service(), self.key.slot, self.key.generation)
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnId({self})")
    }
}

/// What a loop registers with the poll: service, slot and generation in one machine word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) service: u8,
    pub(crate) key: Key,
}

/// The slot number that stands for a service's listener. No connection gets it, since [`crate::slab::SLOTS_MAX`] is below.
const LISTENER_SLOT: u32 = 0x00ff_ffff;
/// The service number that stands for the loop's own wake-up.
const WAKER_SERVICE: u8 = u8::MAX;
/// Services of one loop. The last number is the waker's.
pub(crate) const SERVICES_MAX: usize = WAKER_SERVICE as usize;

const _: () = assert!(crate::slab::SLOTS_MAX <= LISTENER_SLOT);
const _: () = assert!(usize::BITS == 64, "tokens need 64 bits");

impl Token {
    pub(crate) const WAKER: mio::Token = mio::Token(usize::MAX);

    pub(crate) const fn listener(service: u8) -> Self {
        Self { service, key: Key { slot: LISTENER_SLOT, generation: 0 } }
    }

    pub(crate) const fn is_listener(self) -> bool {
        self.key.slot == LISTENER_SLOT
    }

    pub(crate) const fn to_mio(self) -> mio::Token {
        mio::Token(
            ((self.service as usize) << 56) | ((self.key.slot as usize) << 32) | self.key.generation as usize,
        )
    }

    #[expect(clippy::cast_possible_truncation, reason = "takes the fields of the word apart again")]
    pub(crate) const fn from_mio(token: mio::Token) -> Self {
        let word = token.0;
        Self {
            service: (word >> 56) as u8,
            key: Key { slot: ((word >> 32) as u32) & LISTENER_SLOT, generation: word as u32 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_names_survive_their_packing() {
        let key = Key { slot: 0x00ab_cdef, generation: u32::MAX };
        let token = Token { service: 7, key };
        assert_eq!(Token::from_mio(token.to_mio()), token);
        assert!(Token::from_mio(Token::listener(3).to_mio()).is_listener());
        let id = ConnId::new(ConnId::owner_of(513, 7), key);
        let (owner, word) = id.to_parts();
        assert_eq!(ConnId::from_parts(owner, word), id);
        assert_eq!(id.to_string(), "513.7.11259375.4294967295");
    }
}
