//! The machine that a figure was measured on, in words.

use std::fs;
use std::path::Path;

/// Processor, kernel, and the file system that `folder` is on.
#[must_use]
pub fn machine(folder: &Path) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split_once(": ")).map_or("unknown processor", |(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kernel = read("/proc/sys/kernel/osrelease");
    let disk = file_system(&read("/proc/mounts"), folder).unwrap_or_else(|| "unknown".to_owned());
    format!("{cores} cores, {model}; Linux {}; data on {disk}", kernel.trim())
}

/// How busy the machine was in the last minute: what runs beside a measurement is in its figures.
#[must_use]
pub fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// The type and device of the file system that holds `folder`: of all mounts above it the deepest, of those the last.
fn file_system(mounts: &str, folder: &Path) -> Option<String> {
    let mut best: Option<(usize, String)> = None;
    for line in mounts.lines() {
        let mut words = line.split(' ');
        let (Some(device), Some(at), Some(kind)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let depth = Path::new(at).components().count();
        if folder.starts_with(at) && best.as_ref().is_none_or(|(deepest, _)| depth >= *deepest) {
            best = Some((depth, format!("{kind} ({device})")));
        }
    }
    best.map(|(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_above_the_folder_counts() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/x xfs rw 0 0\n";
        let found = |folder: &str| file_system(mounts, Path::new(folder)).unwrap();
        assert_eq!(found("/home/me"), "ext4 (/dev/a)");
        assert_eq!(found("/tmp/y"), "tmpfs (tmpfs)");
        assert_eq!(found("/tmp/x/y"), "xfs (/dev/b)");
        assert_eq!(found("/tmp/xx"), "tmpfs (tmpfs)");
    }
}
