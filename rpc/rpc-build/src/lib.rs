//! For build scripts: makes typed servers and clients of the crate `rpc` from `.proto` files. No `protoc` is needed.
//!
//! ```no_run
//! // build.rs, with `rpc-build` among the build dependencies and `rpc` and `prost` among the dependencies
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     rpc_build::compile(&["proto/greeter.proto"], &["proto"])?;
//!     Ok(())
//! }
//! ```
//!
//! What it made is taken in by the name of the package:
//!
//! ```ignore
//! pub mod greeter {
//!     include!(concat!(env!("OUT_DIR"), "/demo.greeter.rs"));
//! }
//! ```
//!
//! For a service `Greeter` there are then
//!
//! - the trait `Greeter`, whose methods run on a loop and answer through a `Reply`; `GreeterServer` makes a `rpc::Service` of what implements it;
//! - the trait `GreeterBlocking`, whose methods run on workers and answer by returning; `GreeterBlockingServer` likewise;
//! - `GreeterClient`, with a method for each method, which gives a `rpc::Call`;
//! - `MockGreeter`, a server made of closures, for tests;
//! - `GREETER`, the names and ids of all methods, with the service's descriptors.

mod generator;

use std::path::{Path, PathBuf};

use prost::Message as _;
use prost_types::FileDescriptorSet;

/// Why nothing was made.
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// The files are no good, or cannot be read. The text says where and why.
    Proto(String),
    /// A method streams, which `rpc` does not do.
    Streams {
        /// Its full name.
        method: String,
    },
    /// Two methods have the same id, which is a hash of the name. Rename one.
    SameId {
        /// One of them.
        method: String,
        /// The other.
        other: String,
    },
    /// This is no build script: the variable `OUT_DIR` is missing.
    NoOutDir,
    /// A file could not be written.
    Io(std::io::Error),
}

impl std::fmt::Display for BuildError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Proto(text) => f.write_str(text),
            Self::Streams { method } => write!(f, "{method} streams; rpc has calls with one answer only"),
            Self::SameId { method, other } => {
                write!(f, "{method} and {other} have the same id; rename one of them")
            }
            Self::NoOutDir => f.write_str("OUT_DIR is not set: this is for build scripts"),
            Self::Io(error) => write!(f, "cannot write what was made: {error}"),
        }
    }
}

impl std::error::Error for BuildError {}

/// Makes Rust of `protos`, whose imports are looked for in `includes`, into the folder `OUT_DIR`.
///
/// # Errors
/// See [`BuildError`].
pub fn compile<P: AsRef<Path>>(protos: &[P], includes: &[P]) -> Result<(), BuildError> {
    let out = std::env::var_os("OUT_DIR").map(PathBuf::from).ok_or(BuildError::NoOutDir)?;
    for proto in protos {
        // Seen by cargo only: this is what a build script says things with.
        #[expect(clippy::print_stdout, reason = "how a build script talks to cargo")]
        {
            println!("cargo:rerun-if-changed={}", proto.as_ref().display());
        }
    }
    compile_into(&out, prost_build::Config::new(), protos, includes)
}

/// The same with settings for the messages, into any folder.
///
/// # Errors
/// See [`BuildError`].
pub fn compile_into<P: AsRef<Path>>(
    out: &Path,
    mut config: prost_build::Config,
    protos: &[P],
    includes: &[P],
) -> Result<(), BuildError> {
    let set = protox::compile(protos, includes).map_err(|error| BuildError::Proto(error.to_string()))?;
    check(&set)?;
    let name = protos.first().and_then(|proto| proto.as_ref().file_stem());
    let name = format!("{}.descriptors", name.unwrap_or_default().to_string_lossy());
    std::fs::write(out.join(&name), set.encode_to_vec()).map_err(BuildError::Io)?;
    config.out_dir(out).service_generator(Box::new(generator::Generator::new(name)));
    config.compile_fds(set).map_err(BuildError::Io)
}

/// What `rpc` cannot do is said here, while there is a name to it.
fn check(set: &FileDescriptorSet) -> Result<(), BuildError> {
    let mut known: Vec<(u32, String)> = Vec::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                let path = path_of(file.package(), service.name(), method.name());
                if method.client_streaming() || method.server_streaming() {
                    return Err(BuildError::Streams { method: path });
                }
                let id = method_id(&path);
                if let Some((_, other)) = known.iter().find(|(known, _)| *known == id) {
                    return Err(BuildError::SameId { method: path, other: other.clone() });
                }
                known.push((id, path));
            }
        }
    }
    Ok(())
}

pub(crate) fn path_of(package: &str, service: &str, method: &str) -> String {
    if package.is_empty() { format!("{service}/{method}") } else { format!("{package}.{service}/{method}") }
}

/// FNV-1a of 32 bits: the same as `rpc::method_id`, which this crate cannot see.
pub(crate) fn method_id(path: &str) -> u32 {
    path.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(text: &str) -> Result<String, BuildError> {
        let dir = tempfile::tempdir().unwrap();
        let proto = dir.path().join("one.proto");
        std::fs::write(&proto, text).unwrap();
        compile_into(dir.path(), prost_build::Config::new(), &[proto.as_path()], &[dir.path()])?;
        Ok(std::fs::read_to_string(dir.path().join("a.b.rs")).unwrap())
    }

    #[test]
    fn a_service_becomes_a_server_a_client_and_a_mock() {
        let made = build(
            "syntax = \"proto3\"; package a.b;\n\
             message M {}\n\
             // Says hello.\n\
             service Greet { rpc SayHello(M) returns (M) { option idempotency_level = IDEMPOTENT; } }",
        )
        .unwrap();
        for part in [
            "pub trait Greet:",
            "pub trait GreetBlocking:",
            "pub struct GreetServer<",
            "pub struct GreetBlockingServer<",
            "pub struct GreetClient",
            "pub struct MockGreet",
            "fn say_hello(",
            "\"a.b.Greet/SayHello\"",
            "Idempotency::Idempotent",
            "/// Says hello.",
        ] {
            assert!(made.contains(part), "{part} is missing in\n{made}");
        }
    }

    #[test]
    fn a_streaming_method_is_refused_by_name() {
        let error = build(
            "syntax = \"proto3\"; package a.b; message M {}\n\
             service Greet { rpc Hear(M) returns (stream M); }",
        )
        .unwrap_err();
        assert!(matches!(&error, BuildError::Streams { method } if method == "a.b.Greet/Hear"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_proto_is_an_error_that_says_where() {
        let error = build("syntax = \"proto3\"; message {").unwrap_err();
        assert!(matches!(&error, BuildError::Proto(text) if !text.is_empty()), "{error}");
    }
}
