//! Makes the server and the client of the login service from `schema/proto/login.proto`.
#![allow(missing_docs, reason = "a build script has no users")]

/// Messages that hold secrets. Their `Debug` is written by hand, and hides them.
const SECRET: [&str; 7] = [
    ".chat.RegisterRequest",
    ".chat.ByPasswordRequest",
    ".chat.ByTokenRequest",
    ".chat.LoggedIn",
    ".chat.VerifyRequest",
    ".chat.ChangePasswordRequest",
    ".chat.SetPasswordRequest",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = "../schema/proto";
    println!("cargo:rerun-if-changed={folder}");
    let out = std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?;
    let mut config = prost_build::Config::new();
    config.skip_debug(SECRET);
    let file = format!("{folder}/login.proto");
    rpc_build::compile_into(out.as_ref(), config, &[file.as_str()], &[folder])?;
    Ok(())
}
