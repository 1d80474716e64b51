//! The names of services and methods.

/// What calling a method twice does. From the `.proto` file's `idempotency_level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idempotency {
    /// It may do something twice: a call that may have been carried out is not tried again.
    Unknown,
    /// It only reads.
    NoSideEffects,
    /// Twice is the same as once.
    Idempotent,
}

impl Idempotency {
    /// Whether a call may be made again when nobody knows whether it was carried out.
    #[must_use]
    pub const fn may_repeat(self) -> bool {
        !matches!(self, Self::Unknown)
    }
}

/// One method of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodInfo {
    /// Its full name: `package.Service/Method`.
    pub path: &'static str,
    /// What stands for the name on the wire: [`method_id`] of it.
    pub id: u32,
    /// What calling it twice does.
    pub idempotency: Idempotency,
}

impl MethodInfo {
    /// The method of this full name.
    #[must_use]
    pub const fn new(path: &'static str, idempotency: Idempotency) -> Self {
        Self { path, id: method_id(path), idempotency }
    }

    /// The name within the service.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.path.rsplit_once('/').map_or(self.path, |(_, name)| name)
    }
}

/// A service: its methods, and what describes their messages. Made by `rpc-build`.
#[derive(Clone, Debug)]
pub struct ServiceInfo {
    /// Its full name: `package.Service`.
    pub name: &'static str,
    /// Its methods. Their places here are the numbers that [`crate::Service::call`] gets.
    pub methods: &'static [MethodInfo],
    /// An encoded `google.protobuf.FileDescriptorSet` with the service and all that it needs.
    pub descriptors: &'static [u8],
}

/// What stands for a method on the wire: FNV-1a, 32 bits, of `package.Service/Method`.
///
/// ```
/// assert_eq!(rpc::method_id("rpc.test.Echo/Say"), 0xdd68_95dd);
/// ```
#[must_use]
pub const fn method_id(path: &str) -> u32 {
    let bytes = path.as_bytes();
    let mut hash: u32 = 0x811c_9dc5;
    let mut at = 0;
    while at < bytes.len() {
        #[expect(clippy::indexing_slicing, reason = "below the length")]
        let byte = bytes[at];
        hash = (hash ^ byte as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    hash
}
