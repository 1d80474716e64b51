//! tarpc on tokio, one thread each, with its own framing and bincode.

use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt as _;
use serde_bytes::ByteBuf;
use tarpc::server::{BaseChannel, Channel as _};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::{client, context, serde_transport};
use tokio::runtime::Builder;

use crate::load::Meter;
use crate::subject::{Failure, Job, Outcome};

#[tarpc::service]
trait Echo {
    /// In `ByteBuf`: a `Vec<u8>` would be written number by number.
    async fn say(data: ByteBuf) -> ByteBuf;
}

#[derive(Clone)]
struct Server;

impl Echo for Server {
    async fn say(self, _: context::Context, data: ByteBuf) -> ByteBuf {
        data
    }
}

pub(crate) fn serve() -> Result<(), Failure> {
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut incoming = serde_transport::tcp::listen("127.0.0.1:0", Bincode::default).await?;
        eprintln!("listening on {}", incoming.local_addr());
        while let Some(transport) = incoming.next().await {
            let transport = transport?;
            transport.get_ref().set_nodelay(true)?;
            let requests = BaseChannel::with_defaults(transport).execute(Server.serve());
            tokio::spawn(requests.for_each(|answer| async {
                tokio::spawn(answer);
            }));
        }
        Ok(())
    })
}

pub(crate) fn load(job: &Job, addr: &str, pid: u32) -> Result<Outcome, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut clients = Vec::new();
    runtime.block_on(async {
        for _ in 0..job.connections {
            let transport = serde_transport::tcp::connect(addr, Bincode::default).await?;
            transport.get_ref().set_nodelay(true)?;
            clients.push(EchoClient::new(client::Config::default(), transport).spawn());
        }
        Ok::<(), Failure>(())
    })?;
    let meter = Meter::new(job.seconds)?;
    let watched = meter.watch_aside(pid);
    runtime.block_on(async {
        let mut calls = Vec::new();
        for client in &clients {
            for _ in 0..job.depth {
                calls.push(tokio::spawn(chain(client.clone(), job.bytes, Arc::clone(&meter))));
            }
        }
        for call in calls {
            call.await?;
        }
        Ok::<(), Failure>(())
    })?;
    Ok(watched.join().map_err(|_| "the watch panicked")??)
}

async fn chain(client: EchoClient, bytes: usize, meter: Arc<Meter>) {
    let request = ByteBuf::from(vec![7; bytes]);
    loop {
        let began = Instant::now();
        let outcome = client.say(context::current(), request.clone()).await;
        if !meter.ended(began, outcome.is_ok_and(|answer| answer.len() == bytes)) {
            return;
        }
    }
}
