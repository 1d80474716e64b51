//! `tokio_peer`, what one would write with tokio to do what the reactor is measured at: an echo server, a discard server, and posts between threads.
//!
//! Only built with the feature `peers`. The servers take the same arguments as the reactor's example `echo`.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool talks to the person who runs it"
)]

use std::error::Error;
use std::hint::black_box;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// Messages that are taken from the channel in one go, which is cheaper than one by one.
const BATCH: usize = 256;

/// Peers on tokio.
#[derive(Debug, Parser)]
#[command(name = "tokio_peer", args_conflicts_with_subcommands = true)]
struct Options {
    #[command(subcommand)]
    what: Option<What>,
    /// Where to listen; port 0 takes a free one. Says `listening on ADDR` on stderr
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Threads: one is a `current_thread` runtime, more are workers
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// Read, and send nothing back
    #[arg(long)]
    discard: bool,
    /// Bytes of each connection's buffer
    #[arg(long, value_name = "BYTES", default_value_t = 16_384)]
    buffer: usize,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Messages from other threads to a task, through an unbounded channel. Prints nanoseconds per message of each burst
    Post {
        /// Threads that send
        #[arg(long, default_value_t = 1)]
        producers: u32,
        /// Messages of a burst
        #[arg(long, default_value_t = 300_000)]
        tasks: u32,
        /// Bursts, one after the other
        #[arg(long, default_value_t = 1)]
        bursts: u32,
    },
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    if let Some(What::Post { producers, tasks, bursts }) = options.what {
        return post(producers.max(1), tasks, bursts);
    }
    let listen = options.listen.ok_or("--listen ADDR is missing; see --help")?;
    runtime(options.threads)?.block_on(serve(listen, options.discard, options.buffer))
}

fn runtime(threads: usize) -> io::Result<Runtime> {
    let mut builder = if threads > 1 { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    builder.enable_io().build()
}

async fn serve(listen: SocketAddr, discard: bool, buffer: usize) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(listen).await?;
    eprintln!("listening on {}", listener.local_addr()?);
    // On a worker rather than on the thread that waits here: with several threads those are the ones that own the sockets' events.
    tokio::spawn(accept(listener, discard, buffer)).await??;
    Ok(())
}

async fn accept(listener: TcpListener, discard: bool, buffer: usize) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        if discard {
            tokio::spawn(swallow(stream, buffer));
        } else {
            tokio::spawn(echo(stream, buffer));
        }
    }
}

async fn echo(mut stream: TcpStream, buffer: usize) {
    let mut buffer = vec![0; buffer];
    while let Ok(got @ 1..) = stream.read(&mut buffer).await {
        let block = buffer.get(..got).unwrap_or_default();
        if stream.write_all(block).await.is_err() {
            return;
        }
    }
}

async fn swallow(mut stream: TcpStream, buffer: usize) {
    let mut buffer = vec![0; buffer];
    while let Ok(1..) = stream.read(&mut buffer).await {}
}

/// A channel with a task at its end, on a thread and a runtime of its own, and producers that send to it in bursts. Prints for each burst the nanoseconds
/// per message, from the first send until the last has been received.
fn post(producers: u32, tasks: u32, bursts: u32) -> Result<(), Box<dyn Error>> {
    let (sender, mut receiver) = unbounded_channel::<u64>();
    let (done, ended) = channel();
    let each = tasks / producers;
    let whole = (each * producers) as usize;
    let consumer = thread::spawn(move || -> io::Result<()> {
        runtime(1)?.block_on(async {
            let (mut left, mut batch) = (whole, Vec::with_capacity(BATCH));
            while receiver.recv_many(&mut batch, BATCH).await > 0 {
                left -= black_box(&batch).len();
                batch.clear();
                if left == 0 {
                    left = whole;
                    // Nobody listens any more when the last burst is over.
                    let _ = done.send(Instant::now());
                }
            }
        });
        Ok(())
    });
    for _ in 0..bursts {
        // The consumer has gone to sleep by the end of it, as an idle loop has.
        thread::sleep(Duration::from_millis(20));
        let since = burst(&sender, producers, each)?;
        let ended = ended.recv_timeout(Duration::from_secs(60))?;
        println!(
            "{}",
            ended.saturating_duration_since(since).as_secs_f64() * 1e9 / f64::from(each * producers)
        );
    }
    drop(sender);
    consumer.join().map_err(|_| "the consumer panicked")??;
    Ok(())
}

/// Sends from so many threads at once. Returns when the first of them began.
fn burst(sender: &UnboundedSender<u64>, producers: u32, each: u32) -> Result<Instant, Box<dyn Error>> {
    let start = Arc::new(Barrier::new(producers as usize));
    let threads = (0..producers).map(|_| {
        let (sender, start) = (sender.clone(), Arc::clone(&start));
        thread::spawn(move || {
            start.wait();
            let since = Instant::now();
            (0..u64::from(each)).try_for_each(|number| sender.send(number)).map(|()| since)
        })
    });
    let threads: Vec<_> = threads.collect();
    let mut since: Option<Instant> = None;
    for thread in threads {
        let begun = thread.join().map_err(|_| "a producer panicked")??;
        since = Some(since.map_or(begun, |first| first.min(begun)));
    }
    Ok(since.ok_or("nobody sent")?)
}
