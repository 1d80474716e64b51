//! What a server serves, and how it finds a method.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::context::CallContext;
use crate::method::{MethodInfo, ServiceInfo};
use crate::reply::RawReply;

/// A service as a server sees it. `rpc-build` makes one of each typed trait.
pub trait Service: Send + Sync + 'static {
    /// Its names.
    fn info(&self) -> &'static ServiceInfo;

    /// Carries out a call of the method at this place of [`ServiceInfo::methods`]. Runs on a loop and must not block. The reply is the only way out: dropped
    /// without an answer, it becomes an error.
    fn call(&self, method: usize, cx: CallContext, body: &[u8], reply: RawReply);
}

/// Where a call goes.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) service: Arc<dyn Service>,
    /// The method's place in its service.
    pub(crate) method: usize,
    pub(crate) info: &'static MethodInfo,
    /// The method's place among those of all services.
    pub(crate) index: usize,
}

/// All methods that a server knows.
#[derive(Clone, Default)]
pub(crate) struct Routes {
    by_id: FxHashMap<u32, Route>,
    methods: Vec<&'static MethodInfo>,
}

impl Routes {
    /// Adds the methods of a service. The error is the name of a method that has the same id as one that is there.
    pub(crate) fn add(&mut self, service: &Arc<dyn Service>) -> Result<(), &'static str> {
        for (method, info) in service.info().methods.iter().enumerate() {
            let route = Route { service: Arc::clone(service), method, info, index: self.methods.len() };
            if self.by_id.insert(info.id, route).is_some() {
                return Err(info.path);
            }
            self.methods.push(info);
        }
        Ok(())
    }

    pub(crate) fn by_id(&self, id: u32) -> Option<&Route> {
        self.by_id.get(&id)
    }

    /// By name: its id is looked up, and the name compared.
    pub(crate) fn by_path(&self, path: &str) -> Option<&Route> {
        self.by_id(crate::method_id(path)).filter(|route| route.info.path == path)
    }

    pub(crate) fn methods(&self) -> &[&'static MethodInfo] {
        &self.methods
    }
}
