//! The two ends of the login service over `rpc`: [`LoginRpc`] serves a [`LoginPool`], [`RemoteLogin`] stands for one in a chat server.

use std::sync::Arc;
use std::time::Duration;

use reactor::BackoffConfig;
use rpc::registry::Registry;
use rpc::{Call, CallContext, Channel, ChannelConfig, EjectionConfig, Reply, ServerConfig};
use schema::login::{LoginBy, LoginCall, LoginError, LoginReply, Origin};

use crate::config::LoginConfig;
use crate::pool::{LoginPool, ReplyFn};
use crate::proto::{self, LoginClient};
use crate::wire::{Asks, Tells, error_of, origin_out, status_of};

/// The longest request and the longest answer: the longest is a login with as many evicted tokens as a user may have, some 2 KiB.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// Serves a pool. Runs on loops: a call is queued, or refused, and answered by the pool's threads.
#[derive(Clone, Debug)]
pub struct LoginRpc {
    pool: LoginPool,
}

impl LoginRpc {
    /// The service as an `rpc::Server` takes it.
    #[must_use]
    pub const fn service(pool: LoginPool) -> proto::LoginServer<Self> {
        proto::LoginServer(Self { pool })
    }

    /// The limits of a server of this service.
    #[must_use]
    pub fn server_config() -> ServerConfig {
        let mut config = ServerConfig::default();
        config.name = concat!("logd/", env!("CARGO_PKG_VERSION")).to_owned();
        config.body_bytes_max = BODY_BYTES_MAX;
        config.outgoing_bytes_max = 64 * BODY_BYTES_MAX;
        config
    }

    fn ask<T: Tells + prost::Message + 'static>(
        &self,
        cx: &CallContext,
        request: impl Asks,
        reply: Reply<T>,
    ) {
        let (call, origin) = match request.asks() {
            Ok(asked) => asked,
            Err(status) => return reply.fail(status),
        };
        let answer = move |answer: LoginReply| match answer.map(T::of) {
            Ok(Some(message)) => reply.send(message),
            Ok(None) => reply.fail(status_of(LoginError::Internal)),
            Err(error) => reply.fail(status_of(error)),
        };
        self.pool.submit_until(call, origin, cx.deadline(), Box::new(answer));
    }
}

impl proto::Login for LoginRpc {
    fn register(&self, cx: CallContext, request: proto::RegisterRequest, reply: Reply<proto::Registered>) {
        self.ask(&cx, request, reply);
    }

    fn by_password(&self, cx: CallContext, request: proto::ByPasswordRequest, reply: Reply<proto::LoggedIn>) {
        self.ask(&cx, request, reply);
    }

    fn by_token(&self, cx: CallContext, request: proto::ByTokenRequest, reply: Reply<proto::LoggedIn>) {
        self.ask(&cx, request, reply);
    }

    fn logout(&self, cx: CallContext, request: proto::LogoutRequest, reply: Reply<proto::Revoked>) {
        self.ask(&cx, request, reply);
    }

    fn verify(&self, cx: CallContext, request: proto::VerifyRequest, reply: Reply<proto::Verified>) {
        self.ask(&cx, request, reply);
    }

    fn change_password(
        &self,
        cx: CallContext,
        request: proto::ChangePasswordRequest,
        reply: Reply<proto::Revoked>,
    ) {
        self.ask(&cx, request, reply);
    }

    fn set_password(
        &self,
        cx: CallContext,
        request: proto::SetPasswordRequest,
        reply: Reply<proto::Revoked>,
    ) {
        self.ask(&cx, request, reply);
    }
}

/// The login service in other processes, with the answers that it would give in this one: a process that cannot be reached is
/// [`LoginError::Unavailable`], at once, and one that has too much to do is [`LoginError::Overloaded`].
#[derive(Clone)]
pub struct RemoteLogin {
    client: LoginClient,
    channel: Channel,
    timeout: Duration,
    /// What knows the endpoints, kept as long as they are to be known.
    registry: Option<Arc<dyn Registry>>,
}

impl std::fmt::Debug for RemoteLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteLogin").field("channel", &self.channel).finish_non_exhaustive()
    }
}

impl RemoteLogin {
    /// The service behind this channel, which is best made with [`RemoteLogin::channel_config`].
    #[must_use]
    pub fn new(channel: Channel, config: &LoginConfig) -> Self {
        let timeout = config.call_timeout();
        Self { client: LoginClient::new(channel.clone()), channel, timeout, registry: None }
    }

    /// The same, which keeps the registry that its channel has the endpoints from.
    #[must_use]
    pub fn keeping(mut self, registry: impl Registry + 'static) -> Self {
        self.registry = Some(Arc::new(registry));
        self
    }

    /// How a chat server's channel to the service behaves: a process that is gone is noticed within a second or two, and so is its return.
    #[must_use]
    pub fn channel_config(node: &str, config: &LoginConfig) -> ChannelConfig {
        let second = Duration::from_secs(1);
        let mut channel = ChannelConfig::default();
        channel.name = node.to_owned();
        channel.timeout = config.call_timeout();
        channel.body_bytes_max = BODY_BYTES_MAX;
        channel.heartbeat = second;
        channel.connect_timeout = second;
        channel.backoff = BackoffConfig { base: second / 20, cap: second / 2, stable_after: 5 * second };
        let mut ejection = EjectionConfig::default();
        ejection.time = second / 4;
        ejection.time_max = second;
        channel.ejection = ejection;
        channel
    }

    /// What the channel has counted.
    #[must_use]
    pub fn stats(&self) -> rpc::ChannelStats {
        self.channel.stats()
    }

    /// Makes a call. Never blocks; `reply` runs exactly once, on a loop of the channel, or here and now when the call cannot even begin.
    pub fn submit(&self, call: LoginCall, origin: &Origin, reply: ReplyFn) {
        let origin = origin_out(origin);
        let client = &self.client;
        match call {
            LoginCall::Register { name, password } => {
                self.make(client.register(&proto::RegisterRequest { origin, name, password }), reply);
            }
            LoginCall::Login(request) => match request.by {
                LoginBy::Password { name, password } => {
                    let request = proto::ByPasswordRequest { origin, name, password, device: request.device };
                    self.make(client.by_password(&request), reply);
                }
                LoginBy::Token(token) => {
                    let request = proto::ByTokenRequest { origin, token, device: request.device };
                    self.make(client.by_token(&request), reply);
                }
            },
            LoginCall::Logout { token, user, all } => {
                let request =
                    proto::LogoutRequest { origin, token_id: token.0.to_vec(), user: user.get(), all };
                self.make(client.logout(&request), reply);
            }
            LoginCall::Revoke { user } => {
                let request =
                    proto::LogoutRequest { origin, token_id: Vec::new(), user: user.get(), all: true };
                self.make(client.logout(&request), reply);
            }
            LoginCall::Verify { token } => {
                self.make(client.verify(&proto::VerifyRequest { origin, token }), reply);
            }
            LoginCall::ChangePassword { user, keep, old, new } => {
                let keep = keep.0.to_vec();
                let request = proto::ChangePasswordRequest { origin, user: user.get(), keep, old, new };
                self.make(client.change_password(&request), reply);
            }
            LoginCall::SetPassword { user, password } => {
                let request = proto::SetPasswordRequest { origin, user: user.get(), password };
                self.make(client.set_password(&request), reply);
            }
            // A call of a later version of the messages.
            _ => reply(Err(LoginError::Forbidden)),
        }
    }

    fn make<T: Tells + prost::Message + Default + 'static>(&self, call: Call<T>, reply: ReplyFn) {
        // Nobody gives a login up before its time.
        let _ = call.timeout(self.timeout).then(move |outcome| {
            reply(match outcome {
                Ok(message) => message.tells().ok_or_else(|| {
                    log::error!("an answer of the login service makes no sense");
                    LoginError::Internal
                }),
                Err(status) => {
                    let error = error_of(&status);
                    match error {
                        LoginError::Internal => log::error!("a call to the login service failed: {status}"),
                        LoginError::Unavailable => {
                            log::debug!("the login service is unavailable: {status}");
                        }
                        _ => {}
                    }
                    Err(error)
                }
            });
        });
    }
}
