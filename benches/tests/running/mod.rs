//! Runs `chatload`, and reads what it found out.

use std::net::SocketAddr;
use std::process::{Command, Output};

use serde_json::Value;

pub(crate) fn chatload(addr: SocketAddr, args: &[&str]) -> (Output, Option<Value>) {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_chatload"));
    command.args(["--addr", &addr.to_string()]).args(args).arg("--json").arg(&json);
    let output = command.output().unwrap();
    let report = std::fs::read(&json).ok().map(|text| serde_json::from_slice(&text).unwrap());
    (output, report)
}

pub(crate) fn words(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
