//! What tests need on the machine besides Rust and a C compiler.

use std::path::Path;
use std::process::Command;

use crate::shell::{self, Failure};

/// What tests need, and the Debian package it is in.
struct Need {
    name: &'static str,
    found: Found,
    package: &'static str,
    what_for: &'static str,
}

/// How one sees that it is there.
enum Found {
    /// There is a program of its name.
    Program,
    /// There is this file.
    File(&'static str),
}

impl Need {
    fn is_there(&self) -> bool {
        match self.found {
            Found::Program => shell::has(self.name),
            Found::File(path) => Path::new(path).exists(),
        }
    }
}

const NEEDS: &[Need] = &[
    Need {
        name: "strace",
        found: Found::Program,
        package: "strace",
        what_for: "shows that a sync comes before the acknowledgements",
    },
    Need {
        name: "mariadbd",
        found: Found::Program,
        package: "mariadb-server",
        what_for: "the database that the store is tested on",
    },
    Need {
        name: "tmux",
        found: Found::Program,
        package: "tmux",
        what_for: "the terminal in which chatcli is tested, and `play`",
    },
    Need {
        name: "redis-server",
        found: Found::Program,
        package: "redis-server",
        what_for: "what the nodes of a cluster meet in",
    },
    Need {
        name: "nginx",
        found: Found::Program,
        package: "nginx",
        what_for: "the balancer in front of several chatd",
    },
    Need {
        name: "nginx's stream module",
        found: Found::File("/usr/lib/nginx/modules/ngx_stream_module.so"),
        package: "libnginx-mod-stream",
        what_for: "with which nginx balances plain TCP",
    },
    Need {
        name: "libfaketime",
        found: Found::File(if cfg!(target_arch = "aarch64") {
            "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"
        } else {
            "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
        }),
        package: "libfaketime",
        what_for: "gives one node another time in `test faults`",
    },
    Need {
        name: "zookeeper",
        found: Found::File("/usr/share/java/zookeeper.jar"),
        package: "zookeeper",
        what_for: "the registry that rpc is tested on",
    },
    Need {
        name: "slf4j",
        found: Found::File("/usr/share/java/slf4j-simple.jar"),
        package: "libslf4j-java",
        what_for: "without which zookeeper does not start",
    },
    Need {
        name: "java",
        found: Found::Program,
        package: "default-jre-headless",
        what_for: "what zookeeper runs on",
    },
    Need {
        name: "protobuf for Python",
        found: Found::File("/usr/lib/python3/dist-packages/google/protobuf/__init__.py"),
        package: "python3-protobuf",
        what_for: "the language in which docs/rpc.md is put to the test",
    },
];

/// Installs what is missing. Does nothing when nothing is.
pub(crate) fn run() -> Result<(), Failure> {
    let missing: Vec<&Need> = NEEDS.iter().filter(|n| !n.is_there()).collect();
    if missing.is_empty() {
        let names: Vec<&str> = NEEDS.iter().map(|n| n.name).collect();
        println!("all there: {}", names.join(", "));
        return Ok(());
    }
    for need in &missing {
        println!("missing: {} ({})", need.name, need.what_for);
    }
    let packages: Vec<&str> = missing.iter().map(|n| n.package).collect();
    may_install(rustix::process::geteuid().is_root(), shell::has("apt-get"), &packages)?;
    // The package lists may be older than the mirror's, or absent, as in a fresh container.
    apt_get(&["update"])?;
    apt_get(&[&["install", "-y", "--no-install-recommends"], packages.as_slice()].concat())?;
    match missing.iter().find(|n| !n.is_there()) {
        None => Ok(()),
        Some(n) => {
            Err(Failure::Step(format!("{} was installed, but {} is still missing", n.package, n.name)))
        }
    }
}

fn may_install(is_root: bool, has_apt: bool, packages: &[&str]) -> Result<(), Failure> {
    let list = packages.join(" ");
    if !has_apt {
        Err(Failure::Missing(format!("install with your system's package manager: {list}")))
    } else if !is_root {
        Err(Failure::Missing(format!(
            "installing needs root; run: sudo apt-get install -y --no-install-recommends {list}"
        )))
    } else {
        Ok(())
    }
}

fn apt_get(args: &[&str]) -> Result<(), Failure> {
    let mut command = Command::new("apt-get");
    // Another apt-get at work is waited for rather than failed on.
    command.args(["-o", "DPkg::Lock::Timeout=300"]).args(args).env("DEBIAN_FRONTEND", "noninteractive");
    shell::run(&format!("apt-get {}", args.join(" ")), &mut command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_root_or_apt_it_says_what_to_install() {
        let text = |root, apt| may_install(root, apt, &["tmux", "strace"]).unwrap_err().to_string();
        assert!(text(false, true).contains("sudo apt-get install -y --no-install-recommends tmux strace"));
        assert!(text(true, false).contains("package manager: tmux strace"));
        assert!(may_install(true, true, &["tmux"]).is_ok());
    }
}
