//! What every server tells of itself: its services, and what describes their messages. Tools need nothing else to call any method.

#[allow(missing_docs, reason = "made by rpc-build, with the comments of proto/reflection.proto")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/rpc.rs"));
}

pub use generated::*;

use crate::context::CallContext;
use crate::method::ServiceInfo;
use crate::reply::Reply;

/// The services of one server.
#[derive(Debug)]
pub(crate) struct Described(Vec<&'static ServiceInfo>);

impl Described {
    pub(crate) const fn new(services: Vec<&'static ServiceInfo>) -> Self {
        Self(services)
    }
}

impl Reflection for Described {
    fn describe(&self, _: CallContext, request: DescribeRequest, reply: Reply<Description>) {
        let wanted = |info: &&&ServiceInfo| request.service.is_empty() || request.service == info.name;
        let describe = |info: &&ServiceInfo| ServiceDescription {
            name: info.name.to_owned(),
            descriptors: info.descriptors.to_vec(),
        };
        reply.send(Description { services: self.0.iter().filter(wanted).map(describe).collect() });
    }
}
