//! Calls methods that are known only from what the server tells of them.

use std::net::SocketAddr;
use std::time::Duration;

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor};
use reactor::{EventLoopThreadPool, LoopConfig};
use rpc::reflection::{DescribeRequest, Description, ReflectionClient};
use rpc::{Channel, ChannelConfig, Encoded, Idempotency, MethodInfo, Status};
use serde::de::IgnoredAny;

use crate::failure::{Failure, usage};

/// What is to be called, as far as it can be checked without a server.
pub(crate) struct Request {
    pub(crate) service: String,
    method: String,
    json: String,
    metadata: Vec<(String, String)>,
}

impl Request {
    pub(crate) fn read(path: &str, json: &str, metadata: &[String]) -> Result<Self, Failure> {
        let (service, method) = match path.split_once('/') {
            Some((service, method)) if !service.is_empty() && !method.is_empty() => (service, method),
            _ => return usage(format!("{path}: a method is called package.Service/Method")),
        };
        let json = if json == "-" { std::io::read_to_string(std::io::stdin())? } else { json.to_owned() };
        serde_json::from_str::<IgnoredAny>(&json)
            .map_err(|error| Failure::Usage(format!("the request is no JSON: {error}")))?;
        let entry = |entry: &String| match entry.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => usage(format!("--metadata {entry}: it is given as KEY=VALUE")),
        };
        let metadata = metadata.iter().map(entry).collect::<Result<_, _>>()?;
        Ok(Self { service: service.to_owned(), method: method.to_owned(), json, metadata })
    }
}

/// A channel to some servers, with the loop it needs.
pub(crate) struct Caller {
    channel: Channel,
    _pool: EventLoopThreadPool,
}

impl Caller {
    pub(crate) fn connect(addresses: &[SocketAddr], timeout: Duration) -> Result<Self, Failure> {
        let pool = EventLoopThreadPool::start(1, LoopConfig::default())?;
        let mut config = ChannelConfig::default();
        config.name = "rpcctl".to_owned();
        config.timeout = timeout;
        config.connect_timeout = timeout;
        let channel = Channel::to(pool.handles(), addresses.iter().copied(), config)?;
        Ok(Self { channel, _pool: pool })
    }

    /// What a server offers: one service, or with an empty name all.
    pub(crate) fn offers(&self, service: &str) -> Result<Description, Failure> {
        let request = DescribeRequest { service: service.to_owned() };
        let client = ReflectionClient::new(self.channel.clone());
        client.describe(&request).wait().map_err(|status| told(&status))
    }

    fn method(&self, service: &str, name: &str) -> Result<MethodDescriptor, Failure> {
        let description = self.offers(service)?;
        let Some(found) = description.services.first() else {
            return Err(format!("the server has no service {service}").into());
        };
        let pool = DescriptorPool::decode(found.descriptors.as_slice())?;
        let service = pool.get_service_by_name(service);
        let method = service.and_then(|service| service.methods().find(|method| method.name() == name));
        method.ok_or_else(|| format!("{} has no method {name}", found.name).into())
    }
}

/// A failed call, for people.
fn told(status: &Status) -> Failure {
    format!("{status} (carried out: {:?})", status.executed()).into()
}

pub(crate) fn run(request: &Request, addresses: &[SocketAddr], timeout: Duration) -> Result<(), Failure> {
    let caller = Caller::connect(addresses, timeout)?;
    let method = caller.method(&request.service, &request.method)?;
    let mut json = serde_json::Deserializer::from_str(&request.json);
    let message = DynamicMessage::deserialize(method.input(), &mut json).map_err(|error| {
        Failure::Usage(format!("the request is no {}: {error}", method.input().full_name()))
    })?;
    let path = format!("{}/{}", request.service, request.method);
    // Leaked, but once in the life of this program.
    let info: &'static MethodInfo =
        Box::leak(Box::new(MethodInfo::new(Box::leak(path.into_boxed_str()), Idempotency::Unknown)));
    let mut call = caller.channel.call::<Encoded>(info, &Encoded(message.encode_to_vec().into()));
    for (key, value) in &request.metadata {
        call = call.metadata(key, value.as_str());
    }
    let answer = call.wait().map_err(|status| told(&status))?;
    let answer = DynamicMessage::decode(method.output(), answer.0)?;
    println!("{}", serde_json::to_string(&answer)?);
    Ok(())
}

/// Prints what one of these servers offers.
pub(crate) fn describe(addresses: &[SocketAddr], timeout: Duration) -> Result<(), Failure> {
    for offered in Caller::connect(addresses, timeout)?.offers("")?.services {
        println!("{}", offered.name);
        let pool = DescriptorPool::decode(offered.descriptors.as_slice())?;
        let Some(service) = pool.get_service_by_name(&offered.name) else { continue };
        for method in service.methods() {
            let (input, output) = (method.input(), method.output());
            println!("  {}({}) -> {}", method.name(), input.full_name(), output.full_name());
            print_fields("in", &input);
            print_fields("out", &output);
        }
    }
    Ok(())
}

fn print_fields(way: &str, message: &MessageDescriptor) {
    for field in message.fields() {
        let many = if field.is_map() {
            "map "
        } else if field.is_list() {
            "repeated "
        } else {
            ""
        };
        println!("    {way:3} {}: {many}{:?}", field.json_name(), field.kind());
    }
}
