//! A handler made of one closure, for small programs.

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
pub struct FrameHandler<C: Codec + 'static> {
    make_codec: Box<dyn FnMut() -> C>,
    // Boxed, for a closure's type cannot name the type that holds the closure.
    on_frame: Box<OnFrame<C>>,
}

type OnFrame<C> = dyn FnMut(&mut Context<'_, FrameHandler<C>>, ConnId, &[u8]);

impl<C: Codec + 'static> FrameHandler<C> {
    /// A handler that gives each connection a codec from `make_codec` and each frame to `on_frame`.
    pub fn new(
        make_codec: impl FnMut() -> C + 'static,
        on_frame: impl FnMut(&mut Context<'_, Self>, ConnId, &[u8]) + 'static,
    ) -> Self {
        Self { make_codec: Box::new(make_codec), on_frame: Box::new(on_frame) }
    }
}

impl<C: Codec + 'static> Handler for FrameHandler<C> {
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

impl<C: Codec + 'static> std::fmt::Debug for FrameHandler<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameHandler").finish_non_exhaustive()
    }
}
