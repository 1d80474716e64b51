//! Between the messages of `schema` and those of the wire, in both directions. What does not fit is an error, never a guess.

use std::net::IpAddr;

use prost::Message as _;
use rpc::{Code, Status};
use schema::login::{
    LoggedIn, LoginBy, LoginCall, LoginError, LoginReplyOk, LoginRequest, Origin, TokenId, Verified,
};
use schema::{SessionId, UserId};

use crate::proto;
use crate::proto::fault::Reason;
use crate::service::{BAD_DEVICE, BAD_NAME, BAD_PASSWORD};

/// What a request asks for, and who asks.
pub(crate) trait Asks {
    /// Takes it apart.
    fn asks(self) -> Result<(LoginCall, Origin), Status>;
}

/// What stands in an answer.
pub(crate) trait Tells: Sized {
    /// Reads an answer.
    fn tells(self) -> Option<LoginReplyOk>;

    /// Writes one; `None` when it is another kind of answer.
    fn of(reply: LoginReplyOk) -> Option<Self>;
}

pub(crate) fn origin_out(origin: &Origin) -> Option<proto::Origin> {
    let address = match origin.address {
        Some(IpAddr::V4(v4)) => v4.octets().to_vec(),
        Some(IpAddr::V6(v6)) => v6.octets().to_vec(),
        None => Vec::new(),
    };
    Some(proto::Origin { address, node: origin.node.to_string() })
}

fn origin_in(origin: Option<proto::Origin>) -> Result<Origin, Status> {
    let Some(proto::Origin { address, node }) = origin else { return Ok(Origin::default()) };
    let address = match address.len() {
        0 => None,
        4 => <[u8; 4]>::try_from(address).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(address).ok().map(IpAddr::from),
        _ => return Err(malformed("origin.address")),
    };
    let node: String = node.chars().filter(|c| !c.is_control()).take(64).collect();
    Ok(Origin { address, node: node.into() })
}

fn malformed(field: &str) -> Status {
    Status::rejected(Code::InvalidArgument, format!("the field `{field}` makes no sense"))
}

fn token_id(bytes: &[u8]) -> Option<TokenId> {
    bytes.try_into().ok().map(TokenId)
}

fn token_ids(all: &[Vec<u8>]) -> Option<Vec<TokenId>> {
    all.iter().map(|bytes| token_id(bytes)).collect()
}

fn token_bytes(all: &[TokenId]) -> Vec<Vec<u8>> {
    all.iter().map(|token| token.0.to_vec()).collect()
}

impl Asks for proto::RegisterRequest {
    fn asks(self) -> Result<(LoginCall, Origin), Status> {
        Ok((LoginCall::Register { name: self.name, password: self.password }, origin_in(self.origin)?))
    }
}

impl Asks for proto::ByPasswordRequest {
    fn asks(self) -> Result<(LoginCall, Origin), Status> {
        let by = LoginBy::Password { name: self.name, password: self.password };
        Ok((LoginCall::Login(LoginRequest { by, device: self.device }), origin_in(self.origin)?))
    }
}

impl Asks for proto::ByTokenRequest {
    fn asks(self) -> Result<(LoginCall, Origin), Status> {
        let by = LoginBy::Token(self.token);
        Ok((LoginCall::Login(LoginRequest { by, device: self.device }), origin_in(self.origin)?))
    }
}

impl Asks for proto::LogoutRequest {
    fn asks(self) -> Result<(LoginCall, Origin), Status> {
        let user = UserId::new(self.user).ok_or_else(|| malformed("user"))?;
        if self.all && self.token_id.is_empty() {
            return Ok((LoginCall::Revoke { user }, origin_in(self.origin)?));
        }
        let token = token_id(&self.token_id).ok_or_else(|| malformed("token_id"))?;
        Ok((LoginCall::Logout { token, user, all: self.all }, origin_in(self.origin)?))
    }
}

impl Asks for proto::VerifyRequest {
    fn asks(self) -> Result<(LoginCall, Origin), Status> {
        Ok((LoginCall::Verify { token: self.token }, origin_in(self.origin)?))
    }
}

impl Asks for proto::ChangePasswordRequest {
    fn asks(self) -> Result<(LoginCall, Origin), Status> {
        let keep = token_id(&self.keep).ok_or_else(|| malformed("keep"))?;
        let user = UserId::new(self.user).ok_or_else(|| malformed("user"))?;
        let call = LoginCall::ChangePassword { user, keep, old: self.old, new: self.new };
        Ok((call, origin_in(self.origin)?))
    }
}

impl Asks for proto::SetPasswordRequest {
    fn asks(self) -> Result<(LoginCall, Origin), Status> {
        let user = UserId::new(self.user).ok_or_else(|| malformed("user"))?;
        Ok((LoginCall::SetPassword { user, password: self.password }, origin_in(self.origin)?))
    }
}

impl Tells for proto::Registered {
    fn tells(self) -> Option<LoginReplyOk> {
        UserId::new(self.user).map(|user| LoginReplyOk::Registered { user })
    }

    fn of(reply: LoginReplyOk) -> Option<Self> {
        let LoginReplyOk::Registered { user } = reply else { return None };
        Some(Self { user: user.get() })
    }
}

impl Tells for proto::LoggedIn {
    fn tells(self) -> Option<LoginReplyOk> {
        Some(LoginReplyOk::LoggedIn(LoggedIn {
            user: UserId::new(self.user)?,
            name: self.name,
            token: self.token,
            expires_ms: self.expires_ms,
            session: SessionId::new(self.session)?,
            token_id: token_id(&self.token_id)?,
            evicted: token_ids(&self.evicted)?,
        }))
    }

    fn of(reply: LoginReplyOk) -> Option<Self> {
        let LoginReplyOk::LoggedIn(login) = reply else { return None };
        Some(Self {
            user: login.user.get(),
            name: login.name,
            token: login.token,
            expires_ms: login.expires_ms,
            session: login.session.get(),
            token_id: login.token_id.0.to_vec(),
            evicted: token_bytes(&login.evicted),
        })
    }
}

impl Tells for proto::Revoked {
    fn tells(self) -> Option<LoginReplyOk> {
        token_ids(&self.tokens).map(|tokens| LoginReplyOk::Revoked { tokens })
    }

    fn of(reply: LoginReplyOk) -> Option<Self> {
        let LoginReplyOk::Revoked { tokens } = reply else { return None };
        Some(Self { tokens: token_bytes(&tokens) })
    }
}

impl Tells for proto::Verified {
    fn tells(self) -> Option<LoginReplyOk> {
        Some(LoginReplyOk::Verified(Verified {
            user: UserId::new(self.user)?,
            name: self.name,
            token_id: token_id(&self.token_id)?,
            expires_ms: self.expires_ms,
        }))
    }

    fn of(reply: LoginReplyOk) -> Option<Self> {
        let LoginReplyOk::Verified(verified) = reply else { return None };
        Some(Self {
            user: verified.user.get(),
            name: verified.name,
            token_id: verified.token_id.0.to_vec(),
            expires_ms: verified.expires_ms,
        })
    }
}

/// A refusal as a status. Its details say exactly which; the code and whether it was carried out are for `rpc`'s own decisions.
pub(crate) fn status_of(error: LoginError) -> Status {
    let (reason, code) = match error {
        LoginError::Unauthorized => (Reason::Unauthorized, Code::Unauthenticated),
        LoginError::Conflict => (Reason::Conflict, Code::AlreadyExists),
        BAD_NAME => (Reason::BadName, Code::InvalidArgument),
        BAD_DEVICE => (Reason::BadDevice, Code::InvalidArgument),
        LoginError::BadRequest(_) => (Reason::BadPassword, Code::InvalidArgument),
        LoginError::Forbidden => (Reason::Forbidden, Code::PermissionDenied),
        LoginError::Unavailable => (Reason::Unavailable, Code::Unavailable),
        LoginError::Overloaded => (Reason::Overloaded, Code::ResourceExhausted),
        LoginError::RateLimited { .. } => (Reason::RateLimited, Code::ResourceExhausted),
        _ => (Reason::Internal, Code::Internal),
    };
    let retry_after_ms = match error {
        LoginError::RateLimited { retry_after_ms } => retry_after_ms,
        _ => 0,
    };
    let fault = proto::Fault { reason: reason.into(), retry_after_ms };
    let status = Status::new(code, error.to_string()).with_details(fault.encode_to_vec());
    match error {
        // Nothing was done: another process may have room.
        LoginError::Overloaded => status.with_executed(rpc::Executed::Rejected),
        _ => status,
    }
}

/// A status as a refusal: by its details where the service itself gave it, else by its code.
pub(crate) fn error_of(status: &Status) -> LoginError {
    let fault = proto::Fault::decode(status.details()).ok();
    match fault.as_ref().map(proto::Fault::reason) {
        Some(Reason::Unauthorized) => LoginError::Unauthorized,
        Some(Reason::Conflict) => LoginError::Conflict,
        Some(Reason::BadName) => BAD_NAME,
        Some(Reason::BadPassword) => BAD_PASSWORD,
        Some(Reason::BadDevice) => BAD_DEVICE,
        Some(Reason::Forbidden) => LoginError::Forbidden,
        Some(Reason::Unavailable) => LoginError::Unavailable,
        Some(Reason::Overloaded) => LoginError::Overloaded,
        Some(Reason::RateLimited) => {
            LoginError::RateLimited { retry_after_ms: fault.map_or(0, |fault| fault.retry_after_ms) }
        }
        Some(Reason::Internal) => LoginError::Internal,
        Some(Reason::Unspecified) | None => match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => LoginError::Unavailable,
            Code::ResourceExhausted => LoginError::Overloaded,
            _ => LoginError::Internal,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_the_same_on_the_other_side() {
        for error in [
            LoginError::Unauthorized,
            LoginError::Conflict,
            BAD_NAME,
            BAD_PASSWORD,
            BAD_DEVICE,
            LoginError::Forbidden,
            LoginError::Unavailable,
            LoginError::Overloaded,
            LoginError::RateLimited { retry_after_ms: 1_500 },
            LoginError::Internal,
        ] {
            assert_eq!(error_of(&status_of(error)), error);
        }
    }

    #[test]
    fn a_status_that_no_service_gave_is_read_by_its_code() {
        let of = |code| error_of(&Status::not_sent(code, ""));
        assert_eq!(of(Code::Unavailable), LoginError::Unavailable);
        assert_eq!(of(Code::DeadlineExceeded), LoginError::Unavailable);
        assert_eq!(of(Code::ResourceExhausted), LoginError::Overloaded);
        assert_eq!(of(Code::Unimplemented), LoginError::Internal);
    }

    #[test]
    fn addresses_of_both_kinds_arrive() {
        for address in ["192.0.2.1", "2001:db8::1"] {
            let origin = Origin { address: address.parse().ok(), node: "a".into() };
            assert_eq!(origin_in(origin_out(&origin)).unwrap(), origin);
        }
        assert_eq!(origin_in(origin_out(&Origin::default())).unwrap(), Origin::default());
        assert!(origin_in(Some(proto::Origin { address: vec![1; 5], node: String::new() })).is_err());
    }

    #[test]
    fn fields_that_make_no_sense_are_refused() {
        let short = proto::LogoutRequest { token_id: vec![1; 31], user: 1, ..Default::default() };
        assert_eq!(short.asks().unwrap_err().code(), Code::InvalidArgument);
        let nobody = proto::SetPasswordRequest { user: 0, ..Default::default() };
        assert!(nobody.asks().is_err());
        assert!(proto::Registered { user: u64::MAX }.tells().is_none());
        assert!(proto::Revoked { tokens: vec![vec![1; 33]] }.tells().is_none());
    }
}
