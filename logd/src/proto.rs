//! The service's messages and its two ends, made from `schema/proto/login.proto`.
#![allow(missing_docs, reason = "made by rpc-build")]

use std::fmt;

include!(concat!(env!("OUT_DIR"), "/chat.rs"));

/// `Debug` for messages with secrets: the name of the message alone.
macro_rules! hidden {
    ($($message:ident),*) => {$(
        impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($message)).finish_non_exhaustive()
            }
        }
    )*};
}

hidden!(
    RegisterRequest,
    ByPasswordRequest,
    ByTokenRequest,
    LoggedIn,
    VerifyRequest,
    ChangePasswordRequest,
    SetPasswordRequest
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_of_a_message_shows_no_secret() {
        let secret = || "s3cret-word".to_owned();
        let shown = format!(
            "{:?}{:?}{:?}{:?}{:?}{:?}{:?}",
            RegisterRequest { password: secret(), ..Default::default() },
            ByPasswordRequest { password: secret(), ..Default::default() },
            ByTokenRequest { token: secret(), ..Default::default() },
            LoggedIn { token: secret(), ..Default::default() },
            VerifyRequest { token: secret(), ..Default::default() },
            ChangePasswordRequest { old: secret(), new: secret(), ..Default::default() },
            SetPasswordRequest { password: secret(), ..Default::default() },
        );
        assert!(!shown.contains("s3cret") && shown.contains("ByTokenRequest"), "{shown}");
    }
}
