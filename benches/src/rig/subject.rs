//! Who is measured.

use std::path::Path;

/// A server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// The reactor's example.
    Reactor,
    /// Bare epoll in C.
    Epoll,
    /// tokio, with a task and a buffer for each connection.
    Tokio,
    /// asio, in C++.
    Asio,
    /// libevent's buffered events, in C.
    Libevent,
    /// libuv, in C.
    Libuv,
}

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Sends everything back: messages of a few bytes to a few thousand.
    Echo,
    /// The same with blocks that no buffer holds, for whoever chooses its buffers by the size of messages.
    Blocks,
    /// Reads, and sends nothing.
    Discard,
    /// Sends each line to all others. The reactor's alone.
    Hub,
}

/// How a peer that is written in C or C++ is built.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    /// Below `peers`.
    pub(crate) file: &'static str,
    pub(crate) compiler: &'static str,
    pub(crate) flags: &'static [&'static str],
    /// Without it the peer's library is not installed, and the peer is left out.
    pub(crate) header: Option<&'static str>,
}

impl Subject {
    /// Those who always compete.
    pub const MAIN: [Self; 3] = [Self::Reactor, Self::Epoll, Self::Tokio];
    /// Those who compete where their libraries are installed.
    pub const OTHERS: [Self; 3] = [Self::Asio, Self::Libevent, Self::Libuv];

    /// What it is called in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reactor => "reactor",
            Self::Epoll => "epoll",
            Self::Tokio => "tokio",
            Self::Asio => "asio",
            Self::Libevent => "libevent",
            Self::Libuv => "libuv",
        }
    }

    /// How it is built, if not by cargo.
    pub(crate) fn source(self) -> Option<Source> {
        let source = |file, compiler, flags, header| Some(Source { file, compiler, flags, header });
        match self {
            Self::Reactor | Self::Tokio => None,
            Self::Epoll => source("epoll_echo.c", "cc", &["-pthread"], None),
            Self::Asio => {
                source("asio_echo.cpp", "c++", &["-std=c++17", "-pthread"], Some("/usr/include/asio.hpp"))
            }
            Self::Libevent => {
                source("libevent_echo.c", "cc", &["-levent"], Some("/usr/include/event2/event.h"))
            }
            Self::Libuv => source("libuv_echo.c", "cc", &["-luv"], Some("/usr/include/uv.h")),
        }
    }

    /// Whether it can be built here at all.
    #[must_use]
    pub fn is_installed(self) -> bool {
        self.source().and_then(|source| source.header).is_none_or(|header| Path::new(header).exists())
    }
}
