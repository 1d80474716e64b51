//! What tests need on the machine besides Rust and a C compiler.

use std::process::Command;

use crate::shell::{self, Failure};

/// A program that tests run, and the Debian package it is in.
struct Need {
    program: &'static str,
    package: &'static str,
    what_for: &'static str,
}

const NEEDS: &[Need] = &[
    Need {
        program: "strace",
        package: "strace",
        what_for: "shows that a sync comes before the acknowledgements",
    },
    Need {
        program: "mariadbd",
        package: "mariadb-server",
        what_for: "the database that the store is tested on",
    },
    Need {
        program: "tmux",
        package: "tmux",
        what_for: "the terminal in which chatcli is tested, and `play`",
    },
];

/// Installs what is missing. Does nothing when nothing is.
pub(crate) fn run() -> Result<(), Failure> {
    let missing: Vec<&Need> = NEEDS.iter().filter(|n| !shell::has(n.program)).collect();
    if missing.is_empty() {
        let names: Vec<&str> = NEEDS.iter().map(|n| n.program).collect();
        println!("all there: {}", names.join(", "));
        return Ok(());
    }
    for need in &missing {
        println!("missing: {} ({})", need.program, need.what_for);
    }
    let packages: Vec<&str> = missing.iter().map(|n| n.package).collect();
    may_install(rustix::process::geteuid().is_root(), shell::has("apt-get"), &packages)?;
    // The package lists may be older than the mirror's, or absent, as in a fresh container.
    apt_get(&["update"])?;
    apt_get(&[&["install", "-y", "--no-install-recommends"], packages.as_slice()].concat())?;
    match missing.iter().find(|n| !shell::has(n.program)) {
        None => Ok(()),
        Some(n) => {
            Err(Failure::Step(format!("{} was installed, but {} is not in PATH", n.package, n.program)))
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
