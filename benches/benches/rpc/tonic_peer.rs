//! tonic: gRPC on tokio, one thread each. What its code generator would write is written by hand, so that no generator is needed.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use rpc::echo::Payload;
use tokio::runtime::Builder;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{Body, BoxFuture, Service, StdError, http};
use tonic::server::{NamedService, UnaryService};
use tonic::transport::{Channel, Endpoint, Server};
use tonic_prost::ProstCodec;

use crate::load::Meter;
use crate::subject::{Failure, Job, Outcome};

const SAY: &str = "/rpc.test.Echo/Say";

/// Larger than all that is under way, so that it does not wait for updates of its windows.
const WINDOW_BYTES: u32 = 1 << 20;

#[derive(Clone)]
struct EchoServer;

struct Say;

impl UnaryService<Payload> for Say {
    type Response = Payload;
    type Future = BoxFuture<tonic::Response<Payload>, tonic::Status>;

    fn call(&mut self, request: tonic::Request<Payload>) -> Self::Future {
        Box::pin(async move { Ok(tonic::Response::new(request.into_inner())) })
    }
}

impl NamedService for EchoServer {
    const NAME: &'static str = "rpc.test.Echo";
}

impl<B> Service<http::Request<B>> for EchoServer
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        Box::pin(async move {
            if request.uri().path() != SAY {
                return Ok(tonic::Status::unimplemented("no such method").into_http());
            }
            let mut grpc = tonic::server::Grpc::new(ProstCodec::default());
            Ok(grpc.unary(Say, request).await)
        })
    }
}

pub(crate) fn serve() -> Result<(), Failure> {
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        eprintln!("listening on {}", listener.local_addr()?);
        let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
        Server::builder()
            .initial_connection_window_size(WINDOW_BYTES)
            .initial_stream_window_size(WINDOW_BYTES)
            .add_service(EchoServer)
            .serve_with_incoming(incoming)
            .await?;
        Ok(())
    })
}

pub(crate) fn load(job: &Job, addr: &str, pid: u32) -> Result<Outcome, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut channels = Vec::new();
    runtime.block_on(async {
        for _ in 0..job.connections {
            let endpoint = Endpoint::from_shared(format!("http://{addr}"))?
                .tcp_nodelay(true)
                .initial_connection_window_size(WINDOW_BYTES)
                .initial_stream_window_size(WINDOW_BYTES);
            channels.push(endpoint.connect().await?);
        }
        Ok::<(), Failure>(())
    })?;
    let meter = Meter::new(job.seconds)?;
    let watched = meter.watch_aside(pid);
    runtime.block_on(async {
        let mut calls = Vec::new();
        for channel in &channels {
            for _ in 0..job.depth {
                calls.push(tokio::spawn(chain(channel.clone(), job.bytes, Arc::clone(&meter))));
            }
        }
        for call in calls {
            call.await?;
        }
        Ok::<(), Failure>(())
    })?;
    Ok(watched.join().map_err(|_| "the watch panicked")??)
}

async fn chain(channel: Channel, bytes: usize, meter: Arc<Meter>) {
    let mut grpc = tonic::client::Grpc::new(channel);
    let request = Payload { data: vec![7; bytes] };
    loop {
        let began = Instant::now();
        let well = match grpc.ready().await {
            Err(_) => false,
            Ok(()) => {
                let path = PathAndQuery::from_static(SAY);
                let codec = ProstCodec::<Payload, Payload>::default();
                let outcome = grpc.unary(tonic::Request::new(request.clone()), path, codec).await;
                outcome.is_ok_and(|answer| answer.into_inner().data.len() == bytes)
            }
        };
        if !meter.ended(began, well) {
            return;
        }
    }
}
