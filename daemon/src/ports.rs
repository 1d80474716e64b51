//! The ports file: how scripts learn which ports were bound.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;

/// Removes what an earlier run left, so that nobody reads stale ports.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes the ports of these listeners and the pid, as one JSON object, whole or not at all: into a file beside it, which is then renamed.
///
/// # Errors
/// The file system's.
pub fn write(path: &Path, listeners: &[(&str, SocketAddr)]) -> io::Result<()> {
    let pid = std::process::id();
    let mut json = serde_json::Map::new();
    for (name, address) in listeners {
        json.insert((*name).to_owned(), address.port().into());
    }
    json.insert("pid".to_owned(), pid.into());
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{pid}"));
    let beside = path.with_file_name(name);
    let mut file = std::fs::File::create(&beside)?;
    writeln!(file, "{}", serde_json::Value::Object(json))?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_one_object_and_can_be_removed_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ports.json");
        write(&path, &[("rpc", "127.0.0.1:7".parse().unwrap())]).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(value, serde_json::json!({"rpc": 7, "pid": std::process::id()}));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        remove(&path).unwrap();
        remove(&path).unwrap();
    }
}
