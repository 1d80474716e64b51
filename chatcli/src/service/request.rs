//! The lines that the client says.

use std::collections::BTreeMap;

use schema::request::RequestId;
use schema::{ConvId, Seq, UserId};
use serde::Serialize;

/// A request as it is written.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Request<'a> {
    Register {
        name: &'a str,
        password: &'a str,
    },
    Login {
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        password: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        token: Option<&'a str>,
        device: &'a str,
        version: u32,
        hold: bool,
    },
    Sync {
        cursors: &'a BTreeMap<ConvId, Seq>,
        more: bool,
    },
    Logout,
    Password {
        old: &'a str,
        new: &'a str,
    },
    FindUser {
        name: &'a str,
    },
    Send {
        client_id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        user: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        conv: Option<ConvId>,
        text: &'a str,
    },
    Ack {
        conv: ConvId,
        seq: Seq,
    },
    Read {
        conv: ConvId,
        seq: Seq,
    },
    Typing {
        conv: ConvId,
    },
    Marks {
        conv: ConvId,
    },
    History {
        conv: ConvId,
        #[serde(skip_serializing_if = "Option::is_none")]
        before: Option<Seq>,
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<Seq>,
        limit: usize,
    },
    Conversations {
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<ConvId>,
        limit: usize,
    },
    #[serde(rename = "friend_request")]
    FriendAsk {
        user: &'a str,
    },
    FriendAccept {
        user: &'a str,
    },
    FriendReject {
        user: &'a str,
    },
    FriendRemove {
        user: &'a str,
    },
    Block {
        user: &'a str,
    },
    Unblock {
        user: &'a str,
    },
    Friends {
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<UserId>,
        limit: usize,
    },
    Blocked {
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<UserId>,
        limit: usize,
    },
    GroupCreate {
        name: &'a str,
        open: bool,
    },
    GroupJoin {
        conv: ConvId,
    },
    GroupLeave {
        conv: ConvId,
    },
    GroupInvite {
        conv: ConvId,
        user: &'a str,
    },
    GroupKick {
        conv: ConvId,
        user: &'a str,
    },
    GroupRole {
        conv: ConvId,
        user: &'a str,
        role: &'static str,
    },
    GroupRename {
        conv: ConvId,
        name: &'a str,
    },
    GroupMembers {
        conv: ConvId,
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<UserId>,
        limit: usize,
    },
    Groups {
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<ConvId>,
        limit: usize,
    },
}

#[derive(Serialize)]
struct Envelope<'a> {
    #[serde(flatten)]
    request: &'a Request<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<RequestId>,
}

/// A request as a line, without its end.
pub(crate) fn line(request: &Request<'_>, id: Option<RequestId>) -> Vec<u8> {
    // These types have string keys only, which is all that can fail when writing to memory.
    serde_json::to_vec(&Envelope { request, id }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(request: &Request<'_>, id: Option<u64>) -> String {
        String::from_utf8(line(request, id)).unwrap()
    }

    #[test]
    fn requests_are_written_as_the_protocol_shows_them() {
        let conv = ConvId::new(55).unwrap();
        let send = Request::Send { client_id: "c-1", user: Some("bob"), conv: None, text: "hi\n\"you\"" };
        assert_eq!(
            text(&send, Some(7)),
            r#"{"type":"send","client_id":"c-1","user":"bob","text":"hi\n\"you\"","id":7}"#
        );
        let cursors = BTreeMap::from([(conv, Seq::new(100).unwrap())]);
        assert_eq!(
            text(&Request::Sync { cursors: &cursors, more: true }, Some(2)),
            r#"{"type":"sync","cursors":{"55":100},"more":true,"id":2}"#
        );
        assert_eq!(
            text(&Request::Ack { conv, seq: Seq::new(3).unwrap() }, None),
            r#"{"type":"ack","conv":55,"seq":3}"#
        );
    }

    #[test]
    fn the_server_reads_what_is_written() {
        let conv = ConvId::new(55).unwrap();
        let seq = Seq::new(3).unwrap();
        let cursors = BTreeMap::from([(conv, seq)]);
        let login = |name, password, token| Request::Login {
            name,
            password,
            token,
            device: "chatcli",
            version: 1,
            hold: true,
        };
        for request in [
            Request::Register { name: "amy", password: "correct horse" },
            login(Some("amy"), Some("correct horse"), None),
            login(None, None, Some("abc")),
            Request::Sync { cursors: &cursors, more: false },
            Request::Logout,
            Request::Password { old: "correct horse", new: "battery staple" },
            Request::FindUser { name: "bob" },
            Request::Send { client_id: "c", user: None, conv: Some(conv), text: "x" },
            Request::Ack { conv, seq },
            Request::Read { conv, seq },
            Request::Typing { conv },
            Request::Marks { conv },
            Request::History { conv, before: Some(seq), after: None, limit: 200 },
            Request::Conversations { after: None, limit: 200 },
            Request::FriendAsk { user: "bob" },
            Request::FriendAccept { user: "bob" },
            Request::FriendReject { user: "bob" },
            Request::FriendRemove { user: "bob" },
            Request::Block { user: "bob" },
            Request::Unblock { user: "bob" },
            Request::Friends { after: None, limit: 200 },
            Request::Blocked { after: UserId::new(7), limit: 200 },
            Request::GroupCreate { name: "lunch", open: true },
            Request::GroupJoin { conv },
            Request::GroupLeave { conv },
            Request::GroupInvite { conv, user: "bob" },
            Request::GroupKick { conv, user: "bob" },
            Request::GroupRole { conv, user: "bob", role: "admin" },
            Request::GroupRename { conv, name: "lunch" },
            Request::GroupMembers { conv, after: None, limit: 200 },
            Request::Groups { after: Some(conv), limit: 200 },
        ] {
            let line = line(&request, Some(1));
            let read = schema::request::parse(&line);
            assert!(read.is_ok(), "{}: {read:?}", String::from_utf8_lossy(&line));
        }
    }
}
