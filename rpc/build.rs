//! Makes the wire's header from `proto/wire.proto`, and for the tests and benches a service from `proto/echo.proto`.
#![allow(missing_docs, reason = "a build script has no users")]

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let wire = protox::compile(["proto/wire.proto"], ["proto"])?;
    prost_build::Config::new().boxed(".rpc.wire.Header.hello").compile_fds(wire)?;
    rpc_build::compile(&["proto/echo.proto"], &["proto"])?;
    Ok(())
}
