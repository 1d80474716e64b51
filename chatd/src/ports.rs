//! The ports file: how scripts learn which ports were bound.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;

/// Removes what an earlier run left, so that nobody reads stale ports.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes the ports whole or not at all: into a file beside it, which is then renamed.
pub(crate) fn write(path: &Path, chat: SocketAddr, admin: SocketAddr) -> io::Result<()> {
    let pid = std::process::id();
    let json = serde_json::json!({ "chat": chat.port(), "admin": admin.port(), "pid": pid });
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{pid}"));
    let beside = path.with_file_name(name);
    let mut file = std::fs::File::create(&beside)?;
    writeln!(file, "{json}")?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}
