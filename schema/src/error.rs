//! The codes that replies and closes carry.

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant,)*
        }

        impl $name {
            /// All codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The code as it stands in JSON.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

codes! {
    /// Why a request was refused.
    ErrorCode {
        /// The line is no JSON object.
        BadJson = "bad_json",
        /// A field is missing, of the wrong type or out of range.
        BadRequest = "bad_request",
        /// The line or the text is too long.
        TooLarge = "too_large",
        /// The server knows no such type of request.
        UnsupportedType = "unsupported_type",
        /// The server does not speak the version that was asked for.
        UnsupportedVersion = "unsupported_version",
        /// Not logged in, or a wrong name, password or token.
        Unauthorized = "unauthorized",
        /// Logged in, but not allowed.
        Forbidden = "forbidden",
        /// What was named does not exist.
        NotFound = "not_found",
        /// It contradicts what is there already.
        Conflict = "conflict",
        /// Too many requests of this kind.
        RateLimited = "rate_limited",
        /// The server has too much to do.
        Overloaded = "overloaded",
        /// Not known to be done: try again with the same `client_id`.
        Unavailable = "unavailable",
        /// A defect of the server.
        Internal = "internal",
    }
}

codes! {
    /// Why the server ends a connection.
    ByeCode {
        /// No login in time.
        LoginTimeout = "login_timeout",
        /// No sign of life.
        Idle = "idle",
        /// A line beyond the limit.
        TooLarge = "too_large",
        /// Too many bad lines in a row.
        TooManyErrors = "too_many_errors",
        /// Too many requests.
        RateLimited = "rate_limited",
        /// The user logged in more often than the limit of sessions allows; the oldest went.
        Replaced = "replaced",
        /// The session's token was revoked.
        LoggedOut = "logged_out",
        /// The client did not read what was sent to it.
        SlowConsumer = "slow_consumer",
        /// The server is being shut down.
        Shutdown = "shutdown",
        /// A defect of the server, or a state that a new connection mends.
        Internal = "internal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_written_as_they_are_named() {
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_string(code).unwrap(), format!("\"{code}\""));
        }
        for code in ByeCode::ALL {
            assert_eq!(serde_json::to_string(code).unwrap(), format!("\"{code}\""));
        }
    }
}
