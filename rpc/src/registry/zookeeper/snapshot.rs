//! The last known instances in a file, for a start while ZooKeeper is away.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::super::Instance;

/// Services and their instances.
type Content = BTreeMap<String, Vec<Instance>>;

/// The file, with what is in it.
#[derive(Debug)]
pub(super) struct Snapshot {
    path: Option<PathBuf>,
    content: Content,
}

impl Snapshot {
    /// Reads the file. One that is missing or spoilt is empty: it is only a help.
    pub(super) fn open(path: Option<PathBuf>) -> Self {
        let content = path.as_deref().map(read).unwrap_or_default();
        Self { path, content }
    }

    pub(super) fn instances(&self, service: &str) -> Option<&[Instance]> {
        self.content.get(service).map(Vec::as_slice)
    }

    /// Keeps the instances of a service. An empty list is not kept: of it there would be no use.
    pub(super) fn keep(&mut self, service: &str, instances: &[Instance]) {
        let Some(path) = &self.path else { return };
        if instances.is_empty() || self.instances(service) == Some(instances) {
            return;
        }
        self.content.insert(service.to_owned(), instances.to_vec());
        if let Err(error) = write(path, &self.content) {
            log::warn!("cannot write {}: {error}", path.display());
        }
    }
}

fn read(path: &Path) -> Content {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) => {
            log::debug!("no snapshot in {}: {error}", path.display());
            return Content::new();
        }
    };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        log::warn!("{} is no snapshot: {error}", path.display());
        Content::new()
    })
}

/// By way of a second file, so that there is always a whole one.
fn write(path: &Path, content: &Content) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(content)?;
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, text)?;
    std::fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_there_after_a_restart_and_a_spoilt_file_is_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("services.json");
        let instances = [Instance::new("a", "127.0.0.1:1".parse().unwrap())];
        let mut snapshot = Snapshot::open(Some(path.clone()));
        assert_eq!(snapshot.instances("s"), None);
        snapshot.keep("s", &instances);
        snapshot.keep("s", &[]);
        assert_eq!(Snapshot::open(Some(path.clone())).instances("s"), Some(&instances[..]));
        std::fs::write(&path, "{").unwrap();
        assert_eq!(Snapshot::open(Some(path)).instances("s"), None);
    }
}
