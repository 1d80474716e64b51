//! The fields of the requests about accounts and sessions.

use std::borrow::Cow;

use serde::Deserialize;

use super::{BadLine, Proof, Request, name};
use crate::ids::{ConvId, Seq};
use crate::text::{is_device, is_password};

fn password(text: Cow<'_, str>) -> Result<Cow<'_, str>, BadLine> {
    if is_password(&text) { Ok(text) } else { Err(BadLine::bad_request("a password has 8 to 128 bytes")) }
}

#[derive(Deserialize)]
pub(super) struct RegisterBody<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    password: Cow<'a, str>,
}

impl<'a> RegisterBody<'a> {
    pub(super) fn check(self) -> Result<Request<'a>, BadLine> {
        Ok(Request::Register { name: name(self.name)?, password: password(self.password)? })
    }
}

#[derive(Deserialize)]
pub(super) struct LoginBody<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    password: Option<Cow<'a, str>>,
    #[serde(borrow)]
    token: Option<Cow<'a, str>>,
    #[serde(borrow)]
    device: Option<Cow<'a, str>>,
    version: Option<u64>,
    hold: Option<bool>,
}

impl<'a> LoginBody<'a> {
    pub(super) fn check(self) -> Result<Request<'a>, BadLine> {
        let proof = match (self.name, self.password, self.token) {
            (Some(n), Some(p), None) => Proof::Password(name(n)?, password(p)?),
            (None, None, Some(token)) => Proof::Token(token),
            _ => return Err(BadLine::bad_request("a login needs `name` and `password`, or `token`")),
        };
        if self.device.as_deref().is_some_and(|device| !is_device(device)) {
            return Err(BadLine::bad_request("`device` is at most 64 characters, none a control character"));
        }
        Ok(Request::Login {
            proof,
            device: self.device,
            version: self.version,
            hold: self.hold.unwrap_or(false),
        })
    }
}

#[derive(Deserialize)]
pub(super) struct SyncBody {
    cursors: Cursors,
    more: Option<bool>,
}

/// An object whose keys are conv ids as strings, for JSON has no others.
struct Cursors(Vec<(ConvId, Seq)>);

impl<'de> Deserialize<'de> for Cursors {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Cursors;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of conv ids and seqs")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Cursors, A::Error> {
                let mut cursors = Vec::new();
                while let Some((key, seq)) = map.next_entry::<Cow<'de, str>, Seq>()? {
                    let conv = key.parse().ok().and_then(ConvId::new);
                    let conv =
                        conv.ok_or_else(|| serde::de::Error::custom("a key of `cursors` is no conv id"))?;
                    cursors.push((conv, seq));
                }
                Ok(Cursors(cursors))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

impl SyncBody {
    pub(super) fn check(self) -> Request<'static> {
        Request::Sync { cursors: self.cursors.0, more: self.more.unwrap_or(false) }
    }
}

#[derive(Deserialize)]
pub(super) struct LogoutBody {
    all: Option<bool>,
}

impl LogoutBody {
    pub(super) fn check(self) -> Request<'static> {
        Request::Logout { all: self.all.unwrap_or(false) }
    }
}

#[derive(Deserialize)]
pub(super) struct PasswordBody<'a> {
    #[serde(borrow)]
    old: Cow<'a, str>,
    #[serde(borrow)]
    new: Cow<'a, str>,
}

impl<'a> PasswordBody<'a> {
    pub(super) fn check(self) -> Result<Request<'a>, BadLine> {
        Ok(Request::Password { old: password(self.old)?, new: password(self.new)? })
    }
}

#[derive(Deserialize)]
pub(super) struct FindUserBody<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

impl<'a> FindUserBody<'a> {
    pub(super) fn check(self) -> Result<Request<'a>, BadLine> {
        Ok(Request::FindUser { name: name(self.name)? })
    }
}
