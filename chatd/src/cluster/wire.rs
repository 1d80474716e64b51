//! What nodes tell each other through Redis: the names of the channels, and what is published on them.
//!
//! A payload is 8 bytes that name the node it comes from (its start, so that a node started anew is another one), one byte that names the kind, and the
//! rest: an entry as the very line that clients are pushed, or a [`Word`] as JSON. Who meets a kind or a word that it does not know passes it over, so that nodes of
//! two versions can run side by side.

use schema::group::GroupEvent;
use schema::reply::{Body, Message, Push};
use schema::{ConvId, Seq, SessionId, UserId};
use serde::{Deserialize, Serialize};

use crate::passing::{Moved, Passing};

/// An entry follows.
const ENTRY: u8 = b'E';
/// A word follows.
const WORD: u8 = b'W';

/// One start of one node.
pub(super) type Origin = u64;

/// All nodes hear this one.
pub(super) const ALL: &[u8] = b"chat:all";

/// What a channel is for, apart from [`ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Channel {
    /// A user with a session on the node that hears it.
    User(UserId),
    /// A group with a member who has one.
    Group(ConvId),
}

impl Channel {
    pub(super) fn name(self) -> Vec<u8> {
        match self {
            Self::User(user) => format!("chat:u:{user}").into_bytes(),
            Self::Group(conv) => format!("chat:g:{conv}").into_bytes(),
        }
    }

    pub(super) fn parse(name: &[u8]) -> Option<Self> {
        let (kind, number) = std::str::from_utf8(name).ok()?.strip_prefix("chat:")?.split_once(':')?;
        let number = number.parse().ok()?;
        match kind {
            "u" => UserId::new(number).map(Self::User),
            "g" => ConvId::new(number).map(Self::Group),
            _ => None,
        }
    }
}

/// What is told but entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "w", rename_all = "snake_case")]
pub(super) enum Word {
    /// A conversation reaches up to here; some of it may not have been published.
    Head { conv: ConvId, last: Seq, pair: Option<[UserId; 2]> },
    /// A cursor has moved.
    Cursor {
        conv: ConvId,
        user: UserId,
        delivered: Option<Seq>,
        read: Option<Seq>,
        /// Who is told, when it is the two of a direct conversation.
        pair: Option<[UserId; 2]>,
        /// Who is told, when it is a group.
        group: bool,
    },
    /// A user is typing.
    Typing { conv: ConvId, user: UserId },
    /// A line for all sessions of a user.
    Line { to: UserId, line: String },
    /// The two of a direct conversation may no longer write to each other, or may again.
    Blocked { conv: ConvId, now: bool },
    /// Tokens of a user are revoked, as they stand in the table.
    Revoked { user: UserId, tokens: Vec<[u8; 32]> },
    /// All sessions of a user end, but one.
    EndAll { user: UserId, but: Option<SessionId> },
    /// A session began; its stamp is the time by Redis's clock. `is_news`: its node tells the user's friends on all nodes.
    Entered { user: UserId, session: SessionId, stamp: u64, is_news: bool },
    /// A session ended.
    Left { user: UserId, session: SessionId },
    /// What this node has published of late may not have arrived.
    Behind,
    /// This node was gone, and is there again with all its sessions.
    Back,
    /// This node ends, and all its sessions with it.
    Leaving,
}

/// A payload taken apart.
#[derive(Debug)]
pub(super) enum Payload<'a> {
    /// An entry, with its line.
    Entry(Passing, &'a [u8]),
    Word(Word),
}

pub(super) fn encode_entry(origin: Origin, line: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(9 + line.len());
    payload.extend_from_slice(&origin.to_be_bytes());
    payload.push(ENTRY);
    payload.extend_from_slice(line);
    payload
}

pub(super) fn encode_word(origin: Origin, word: &Word) -> Vec<u8> {
    let mut payload = Vec::with_capacity(128);
    payload.extend_from_slice(&origin.to_be_bytes());
    payload.push(WORD);
    // Writing to a vector cannot fail, and neither can these shapes.
    if let Err(error) = serde_json::to_writer(&mut payload, word) {
        log::error!("a word for the other nodes cannot be written: {error}");
    }
    payload
}

/// Whose payload it is, and what follows.
pub(super) fn split(payload: &[u8]) -> Option<(Origin, &[u8])> {
    let (origin, rest) = payload.split_first_chunk::<8>()?;
    Some((Origin::from_be_bytes(*origin), rest))
}

/// What follows the origin. `None`: nothing that this version knows.
pub(super) fn decode(rest: &[u8]) -> Option<Payload<'_>> {
    let (kind, body) = rest.split_first()?;
    match *kind {
        ENTRY => match serde_json::from_slice(body) {
            Ok(Push::Message(message)) => Some(Payload::Entry(passing(&message)?, body)),
            _ => None,
        },
        WORD => serde_json::from_slice(body).ok().map(Payload::Word),
        _ => None,
    }
}

fn passing(message: &Message<'_>) -> Option<Passing> {
    let pair = message.to.map(|to| [message.from.min(to), message.from.max(to)]);
    let moved = match &message.body {
        Body::Event(GroupEvent::Created { user, .. } | GroupEvent::Joined { user }) => Some(Moved::In(*user)),
        Body::Event(GroupEvent::Left { user } | GroupEvent::Kicked { user, .. }) => Some(Moved::Out(*user)),
        _ => None,
    };
    (message.seq > Seq::ZERO).then_some(Passing {
        conv: message.conv,
        seq: message.seq,
        session: None,
        pair,
        moved,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: u64) -> UserId {
        UserId::new(number).unwrap()
    }

    #[test]
    fn channels_have_names_that_are_read_back() {
        for channel in [Channel::User(user(7)), Channel::Group(ConvId::new(55).unwrap())] {
            assert_eq!(Channel::parse(&channel.name()), Some(channel));
        }
        for name in ["chat:all", "chat:u:", "chat:u:0", "chat:x:1", "u:1", ""] {
            assert_eq!(Channel::parse(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn an_entry_comes_back_as_its_line_and_what_is_needed_of_it() {
        let line = br#"{"type":"message","conv":55,"kind":"direct","seq":3,"from":12,"from_name":"bob","to":7,"to_name":"amy","text":"hi","time_ms":1}"#;
        let payload = encode_entry(9, line);
        let (origin, rest) = split(&payload).unwrap();
        assert_eq!(origin, 9);
        let Some(Payload::Entry(passing, back)) = decode(rest) else { panic!("an entry") };
        assert_eq!(back, line);
        assert_eq!((passing.conv.get(), passing.seq.get()), (55, 3));
        assert_eq!(passing.pair, Some([user(7), user(12)]));
        assert_eq!((passing.session, passing.moved), (None, None));
    }

    #[test]
    fn who_joined_or_left_is_known_from_the_line() {
        let decoded = |body: &str| {
            let line = format!(
                r#"{{"type":"message","conv":5,"kind":"group","seq":2,"from":1,"from_name":"a",{body},"time_ms":1}}"#
            );
            match decode(split(&encode_entry(1, line.as_bytes())).unwrap().1) {
                Some(Payload::Entry(passing, _)) => passing.moved,
                _ => panic!("an entry"),
            }
        };
        assert_eq!(decoded(r#""event":"joined","user":4"#), Some(Moved::In(user(4))));
        assert_eq!(decoded(r#""event":"created","user":4,"name":"g""#), Some(Moved::In(user(4))));
        assert_eq!(decoded(r#""event":"kicked","user":4,"name":"x""#), Some(Moved::Out(user(4))));
        assert_eq!(decoded(r#""event":"renamed","user":4,"name":"x""#), None);
        assert_eq!(decoded(r#""text":"hi""#), None);
    }

    #[test]
    fn words_come_back_and_what_is_unknown_is_passed_over() {
        let words = [
            Word::Head { conv: ConvId::new(1).unwrap(), last: Seq::new(5).unwrap(), pair: None },
            Word::Revoked { user: user(1), tokens: vec![[7; 32]] },
            Word::Behind,
        ];
        for word in words {
            let payload = encode_word(3, &word);
            let Some(Payload::Word(back)) = decode(split(&payload).unwrap().1) else { panic!("a word") };
            assert_eq!(back, word);
        }
        for rest in [&b""[..], b"W{}", b"W{\"w\":\"of_later\"}", b"E{}", b"E[", b"Zwhat"] {
            assert!(decode(rest).is_none(), "{rest:?}");
        }
        assert!(split(b"short").is_none());
    }
}
