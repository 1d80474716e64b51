//! `rpcctl`: looks at services and calls them, by hand.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool talks to the person who runs it")]

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use reactor::{EventLoopThreadPool, LoopConfig};
use rpc::reflection::{DescribeRequest, Description, ReflectionClient};
use rpc::registry::{InstanceState, Registry, ZooKeeperConfig, ZooKeeperRegistry};
use rpc::wire::{self, Header, Hello, Kind};
use rpc::{Channel, ChannelConfig, Encoded, Idempotency, MethodInfo};

/// Looks at services in ZooKeeper and calls them by hand.
#[derive(Debug, Parser)]
#[command(name = "rpcctl", version)]
struct Options {
    /// The ZooKeeper servers that services are looked up in: HOST:PORT,HOST:PORT
    #[arg(long, env = "RPC_ZOOKEEPER", value_name = "HOSTS", global = true)]
    zookeeper: Option<String>,
    /// Seconds that each step may take
    #[arg(long, default_value_t = 5.0, value_name = "S", global = true)]
    timeout: f64,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The services in ZooKeeper, with how many instances each has
    Services,
    /// The instances of a service in ZooKeeper
    Instances {
        /// Its full name: package.Service
        service: String,
    },
    /// Says hello to a server and pings it
    Ping {
        /// HOST:PORT
        address: String,
        /// How often
        #[arg(long, default_value_t = 3)]
        count: u32,
    },
    /// The services and methods of a server
    Describe {
        /// HOST:PORT
        address: String,
    },
    /// Calls a method with JSON and prints the answer as JSON
    Call {
        /// package.Service/Method
        method: String,
        /// The request; `-` reads it from standard input
        #[arg(default_value = "{}")]
        request: String,
        /// The server, HOST:PORT, instead of one from ZooKeeper
        #[arg(long, value_name = "ADDRESS")]
        at: Option<String>,
        /// Said beside the request; may be given several times
        #[arg(long, value_name = "KEY=VALUE")]
        metadata: Vec<String>,
    },
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(text)) => {
            eprintln!("rpcctl: {text}");
            ExitCode::from(2)
        }
        Err(Failure::Run(error)) => {
            eprintln!("rpcctl: {error}");
            ExitCode::FAILURE
        }
    }
}

enum Failure {
    Usage(String),
    Run(Box<dyn Error>),
}

impl<E: Into<Box<dyn Error>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Run(error.into())
    }
}

fn usage<T>(text: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Usage(text.into()))
}

fn run(options: &Options) -> Result<(), Failure> {
    if !(options.timeout > 0.0 && options.timeout < 1e6) {
        return usage("--timeout has to be more than nothing and less than a million seconds");
    }
    let timeout = Duration::from_secs_f64(options.timeout);
    match &options.command {
        Command::Services => {
            let registry = registry(options)?;
            for service in registry.services()? {
                println!("{service}\t{}", registry.instances(&service)?.len());
            }
            Ok(())
        }
        Command::Instances { service } => instances(&registry(options)?, service),
        Command::Ping { address, count } => ping(resolve(address)?, *count, timeout),
        Command::Describe { address } => describe(resolve(address)?, timeout),
        Command::Call { method, request, at, metadata } => {
            let address = match at {
                Some(address) => resolve(address)?,
                None => look_up(&registry(options)?, method)?,
            };
            let request =
                if request == "-" { std::io::read_to_string(std::io::stdin())? } else { request.clone() };
            call(address, method, &request, metadata, timeout)
        }
    }
}

fn registry(options: &Options) -> Result<ZooKeeperRegistry, Failure> {
    let Some(servers) = &options.zookeeper else {
        return usage("name the ZooKeeper servers with --zookeeper HOST:PORT");
    };
    let config = ZooKeeperConfig::new(servers).map_err(|error| Failure::Usage(error.to_string()))?;
    let registry = ZooKeeperRegistry::start(config)?;
    // The first question may come before the first session.
    let until = Instant::now() + Duration::from_secs_f64(options.timeout);
    while registry.sessions() == 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(registry)
}

fn resolve(address: &str) -> Result<SocketAddr, Failure> {
    let found = address.to_socket_addrs().map_err(|error| Failure::Usage(format!("{address}: {error}")))?;
    found.into_iter().next().map_or_else(|| usage(format!("{address} has no address")), Ok)
}

fn instances(registry: &dyn Registry, service: &str) -> Result<(), Failure> {
    for instance in registry.instances(service)? {
        let state = match instance.state {
            InstanceState::Up => "up",
            InstanceState::Draining => "draining",
        };
        let or = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        let (version, zone) = (or(&instance.version), or(&instance.zone));
        println!("{}\t{}\t{state}\t{}\t{zone}\t{version}", instance.address, instance.id, instance.weight);
    }
    Ok(())
}

/// The address of an instance that takes calls.
fn look_up(registry: &dyn Registry, method: &str) -> Result<SocketAddr, Failure> {
    let Some((service, _)) = method.split_once('/') else {
        return usage("a method is called package.Service/Method");
    };
    let all = registry.instances(service)?;
    let up: Vec<_> = all.iter().filter(|instance| instance.state == InstanceState::Up).collect();
    let chosen = up.get(fastrand::usize(..up.len().max(1)));
    chosen.map(|instance| instance.address).ok_or_else(|| format!("no instance of {service} is up").into())
}

fn ping(address: SocketAddr, count: u32, timeout: Duration) -> Result<(), Failure> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_nodelay(true)?;
    let hello = Hello {
        version: wire::VERSION,
        version_min: wire::VERSION,
        frame_bytes_max: 1 << 20,
        name: "rpcctl".to_owned(),
        ..Hello::default()
    };
    let hello = Header { hello: Some(Box::new(hello)), ..Header::of(Kind::Hello, 0) };
    let answer = ask(&mut stream, &hello, Kind::Hello)?;
    let theirs = answer.hello.unwrap_or_default();
    println!("{address} is \"{}\", protocol {} to {}", theirs.name, theirs.version_min, theirs.version);
    for number in 1..=u64::from(count) {
        let began = Instant::now();
        let pong = ask(&mut stream, &Header::of(Kind::Ping, number), Kind::Pong)?;
        if pong.call_id != number {
            return Err("the answer is to another ping".into());
        }
        println!("{number}: {:.3} ms", began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(())
}

/// Sends a frame and waits for one of this kind.
fn ask(stream: &mut TcpStream, header: &Header, wanted: Kind) -> Result<Header, Failure> {
    stream.write_all(&wire::frame_of(header))?;
    loop {
        let mut length = [0; wire::LENGTH_BYTES];
        stream.read_exact(&mut length)?;
        let length = usize::try_from(u32::from_be_bytes(length))?;
        if length > 1 << 20 {
            return Err("a frame that is too long".into());
        }
        let mut frame = vec![0; length];
        stream.read_exact(&mut frame)?;
        let header = wire::parse(&frame)?.header;
        if header.kind() == wanted {
            return Ok(header);
        }
    }
}

/// A channel to one server, with the loop it needs.
fn connect(address: SocketAddr, timeout: Duration) -> Result<(EventLoopThreadPool, Channel), Failure> {
    let pool = EventLoopThreadPool::start(1, LoopConfig::default())?;
    let mut config = ChannelConfig::default();
    config.name = "rpcctl".to_owned();
    config.timeout = timeout;
    config.connect_timeout = timeout;
    let channel = Channel::to(pool.handles(), [address], config)?;
    Ok((pool, channel))
}

fn description(channel: &Channel, service: &str) -> Result<Description, Failure> {
    let request = DescribeRequest { service: service.to_owned() };
    Ok(ReflectionClient::new(channel.clone()).describe(&request).wait()?)
}

fn describe(address: SocketAddr, timeout: Duration) -> Result<(), Failure> {
    let (_pool, channel) = connect(address, timeout)?;
    for service in description(&channel, "")?.services {
        println!("{}", service.name);
        let pool = DescriptorPool::decode(service.descriptors.as_slice())?;
        let found = pool.get_service_by_name(&service.name);
        for method in found.iter().flat_map(|service| service.methods().collect::<Vec<_>>()) {
            println!(
                "  {}({}) -> {}",
                method.name(),
                method.input().full_name(),
                method.output().full_name()
            );
        }
    }
    Ok(())
}

fn call(
    address: SocketAddr,
    path: &str,
    request: &str,
    metadata: &[String],
    timeout: Duration,
) -> Result<(), Failure> {
    let Some((service, name)) = path.split_once('/') else {
        return usage("a method is called package.Service/Method");
    };
    let (_pool, channel) = connect(address, timeout)?;
    let method = method(&channel, service, name)?;
    let mut json = serde_json::Deserializer::from_str(request);
    let message = DynamicMessage::deserialize(method.input(), &mut json).map_err(|error| {
        Failure::Usage(format!("the request is no {}: {error}", method.input().full_name()))
    })?;
    json.end().map_err(|error| Failure::Usage(format!("the request: {error}")))?;
    // Once in the life of this program.
    let info: &'static MethodInfo = Box::leak(Box::new(MethodInfo::new(
        Box::leak(path.to_owned().into_boxed_str()),
        Idempotency::Unknown,
    )));
    let mut call = channel.call::<Encoded>(info, &Encoded(message.encode_to_vec().into()));
    for entry in metadata {
        let Some((key, value)) = entry.split_once('=') else {
            return usage(format!("{entry} is not KEY=VALUE"));
        };
        call = call.metadata(key, value);
    }
    match call.wait() {
        Ok(answer) => {
            let answer = DynamicMessage::decode(method.output(), answer.0)?;
            println!("{}", serde_json::to_string(&answer)?);
            Ok(())
        }
        Err(status) => Err(format!("{status} (carried out: {:?})", status.executed()).into()),
    }
}

fn method(channel: &Channel, service: &str, name: &str) -> Result<MethodDescriptor, Failure> {
    let description = description(channel, service)?;
    let Some(found) = description.services.first() else {
        return Err(format!("the server has no service {service}").into());
    };
    let pool = DescriptorPool::decode(found.descriptors.as_slice())?;
    let service = pool.get_service_by_name(service);
    let method = service.and_then(|service| service.methods().find(|method| method.name() == name));
    method.ok_or_else(|| format!("{} has no method {name}", found.name).into())
}
