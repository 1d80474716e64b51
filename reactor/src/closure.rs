//! A handler made of one closure, for small programs.

use std::marker::PhantomData;

use crate::codec::Codec;
use crate::context::Context;
use crate::handler::{Handler, OpenInfo};
use crate::id::ConnId;

/// A service without state per connection: a codec and what to do with each frame.
///
/// ```
/// use reactor::{EventLoop, FrameHandler, LoopConfig, ServiceConfig, TcpServer, codec::LinesCodec};
///
/// let mut event_loop = EventLoop::new(LoopConfig::default())?;
/// let server = TcpServer::bind("127.0.0.1:0".parse()?, ServiceConfig::default())?;
/// server.serve_here(
///     &mut event_loop,
///     FrameHandler::new(|| LinesCodec::new(4096), |cx, id, line| {
///         // A send to a connection that is gone says so; an echo server does not mind.
///         let _ = cx.send_frame(id, line);
///     }),
/// )?;
/// event_loop.handle().stop(); // an example must end; a server would not
/// event_loop.run()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct FrameHandler<C, M, F> {
    make_codec: M,
    on_frame: F,
    codec: PhantomData<fn() -> C>,
}

impl<C, M, F> FrameHandler<C, M, F>
where
    C: Codec + 'static,
    M: FnMut() -> C + 'static,
    F: FnMut(&mut Context<'_, Self>, ConnId, &[u8]) + 'static,
{
    /// A handler that gives each connection a codec from `make_codec` and each frame to `on_frame`.
    pub fn new(make_codec: M, on_frame: F) -> Self {
        Self { make_codec, on_frame, codec: PhantomData }
    }
}

impl<C, M, F> Handler for FrameHandler<C, M, F>
where
    C: Codec + 'static,
    M: FnMut() -> C + 'static,
    F: FnMut(&mut Context<'_, Self>, ConnId, &[u8]) + 'static,
{
    type Conn = ();
    type Post = std::convert::Infallible;
    type Codec = C;

    fn codec(&mut self) -> C {
        (self.make_codec)()
    }

    fn on_open(&mut self, _: &mut Context<'_, Self>, _: ConnId, _: &OpenInfo) {}

    fn on_frame(&mut self, cx: &mut Context<'_, Self>, id: ConnId, frame: &[u8]) {
        (self.on_frame)(cx, id, frame);
    }

    fn on_post(&mut self, _: &mut Context<'_, Self>, post: Self::Post) {
        match post {}
    }
}

impl<C, M, F> std::fmt::Debug for FrameHandler<C, M, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameHandler").finish_non_exhaustive()
    }
}
