//! Makes the wire's header from `proto/wire.proto`, the service that every server has from `proto/reflection.proto`,
//! one for the tests and benches from `proto/echo.proto`, and
//! that of the guide from `proto/greeter.proto`.
#![allow(missing_docs, reason = "a build script has no users")]

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let wire = protox::compile(["proto/wire.proto"], ["proto"])?;
    prost_build::Config::new().boxed(".rpc.wire.Header.hello").compile_fds(wire)?;
    rpc_build::compile(&["proto/echo.proto"], &["proto"])?;
    rpc_build::compile(&["proto/reflection.proto"], &["proto"])?;
    rpc_build::compile(&["proto/greeter.proto"], &["proto"])?;
    Ok(())
}
