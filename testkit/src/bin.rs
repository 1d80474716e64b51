//! Finding the workspace's own programs from another crate's tests.

use std::collections::HashMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// The path of the workspace's program `name` (its package has the same name), in the profile in which the test itself was built.
///
/// Cargo tells a package's tests only where that package's *own* programs are (`CARGO_BIN_EXE_…`), and builds no other. So what is
/// missing here, or older than one of its sources, is built first, once per test process.
///
/// # Panics
/// When it cannot be built.
pub fn bin(name: &str) -> PathBuf {
    static BUILT: Mutex<Option<HashMap<String, PathBuf>>> = Mutex::new(None);
    // Held over the build on purpose: the tests that wait for the same program wait for one build.
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let built = built.get_or_insert_default();
    if let Some(path) = built.get(name) {
        return path.clone();
    }
    let dir = profile_dir();
    let path = dir.join(name);
    if !is_fresh(&path, &dir.join(format!("{name}.d"))) {
        build(name, &dir);
    }
    assert!(path.exists(), "cargo built {name}, but not at {}", path.display());
    built.insert(name.to_owned(), path.clone());
    path
}

/// The folder of the profile: that of the test program, without `deps` or `examples`.
fn profile_dir() -> PathBuf {
    let exe = env::current_exe().expect("the path of the test program");
    let mut dir = exe.parent().expect("the folder of the test program");
    if dir.ends_with("deps") || dir.ends_with("examples") {
        dir = dir.parent().expect("the folder of the profile");
    }
    dir.to_owned()
}

/// Whether `program` is younger than every file its dependency list names.
fn is_fresh(program: &Path, dep_list: &Path) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
    let (Some(made), Ok(list)) = (time(program), fs::read_to_string(dep_list)) else { return false };
    let Some((_, sources)) = list.lines().next().and_then(|l| l.split_once(": ")) else { return false };
    // In the list a blank inside a path is written as backslash and blank.
    sources
        .replace("\\ ", "\u{0}")
        .split(' ')
        .filter(|s| !s.is_empty())
        .all(|s| time(Path::new(&s.replace('\u{0}', " "))).is_some_and(|t| t <= made))
}

fn build(name: &str, profile_dir: &Path) {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--quiet", "--package", name, "--bin", name]);
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace's folder"));
    command.arg("--target-dir").arg(profile_dir.parent().expect("the target folder"));
    if profile_dir.ends_with("release") {
        command.arg("--release");
    }
    let output = command.output().expect("run cargo");
    assert!(output.status.success(), "could not build {name}:\n{}", String::from_utf8_lossy(&output.stderr));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_older_than_a_source_or_without_a_list_is_not_fresh() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("old source.rs"), "").unwrap();
        fs::write(at("new.rs"), "").unwrap();
        fs::write(at("program"), "").unwrap();
        assert!(!is_fresh(&at("program"), &at("program.d")));

        let set = |name: &str, secs: u64| {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(secs);
            fs::File::options().write(true).open(at(name)).unwrap().set_modified(time).unwrap();
        };
        set("old source.rs", 100);
        set("new.rs", 300);
        set("program", 200);
        let escaped = |name: &str| at(name).display().to_string().replace(' ', "\\ ");
        let list = |names: &[&str]| {
            let deps: Vec<String> = names.iter().map(|n| escaped(n)).collect();
            fs::write(at("program.d"), format!("{}: {}\n", escaped("program"), deps.join(" "))).unwrap();
        };
        list(&["old source.rs"]);
        assert!(is_fresh(&at("program"), &at("program.d")));
        list(&["old source.rs", "new.rs"]);
        assert!(!is_fresh(&at("program"), &at("program.d")));
        list(&["old source.rs", "gone.rs"]);
        assert!(!is_fresh(&at("program"), &at("program.d")));
    }
}
