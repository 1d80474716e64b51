//! The bodies of the fuzz targets, on their corpus and on bytes from seeds: random ones, and the corpus with changes.
//!
//! `CHATD_FUZZ_SEEDS=N` runs so many seeds of each kind instead; `CHATD_FUZZ_SEED=N` one alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    missing_docs,
    reason = "test code"
)]

#[path = "../fuzz/bodies.rs"]
mod bodies;

use std::fs;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use testkit::Chatd;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn seeds(usual: u64) -> Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("CHATD_FUZZ_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CHATD_FUZZ_SEEDS").unwrap_or(usual),
    }
}

fn random(rng: &mut fastrand::Rng, max: usize) -> Vec<u8> {
    (0..rng.usize(..max)).map(|_| rng.u8(..)).collect()
}

/// One of the corpus, with bytes changed, cut out, put in, or from another one.
fn changed(rng: &mut fastrand::Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = rng.choice(corpus).unwrap().clone();
    for _ in 0..rng.usize(1..5) {
        let at = rng.usize(..=bytes.len());
        let other = rng.choice(corpus).unwrap();
        match rng.u8(..5) {
            0 if at < bytes.len() => bytes[at] = rng.u8(..),
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 => bytes.truncate(at.max(1)),
            3 => drop(bytes.splice(at.., other[rng.usize(..other.len())..].iter().copied())),
            _ => bytes.insert(at, rng.choice(b"{}[]\":,\\u0e-9n ".iter().copied()).unwrap()),
        }
    }
    bytes
}

fn run(target: &str, usual: u64, random_max: usize, body: impl Fn(&[u8])) {
    let corpus = corpus(target);
    assert!(corpus.len() >= 8, "the corpus of {target} is there");
    corpus.iter().for_each(|bytes| body(bytes));
    for seed in seeds(usual) {
        let mut rng = fastrand::Rng::with_seed(seed);
        for bytes in [random(&mut rng, random_max), changed(&mut rng, &corpus)] {
            if catch_unwind(AssertUnwindSafe(|| body(&bytes))).is_err() {
                panic!("{target} fails for CHATD_FUZZ_SEED={seed}: {bytes:?}");
            }
        }
    }
}

#[test]
fn a_request_is_parsed_or_refused_whatever_the_bytes() {
    run("request", 20_000, 100, bodies::request);
}

#[test]
fn sessions_get_what_the_histories_hold_whatever_they_do() {
    let server = Chatd::builder(env!("CARGO_BIN_EXE_chatd")).start().unwrap();
    run("sessions", 40, 256, |data| bodies::sessions(server.chat_addr(), data));
    let log = server.log_text();
    assert!(!log.contains("panic") && !log.contains("defect"), "{log}");
}

#[test]
fn the_fuzz_target_of_sessions_is_made_of_all_that_the_server_is_made_of() {
    let of_server = include_str!("../src/main.rs").lines().filter(|line| line.starts_with("mod "));
    let of_target = include_str!("../fuzz/fuzz_targets/sessions.rs");
    for module in of_server {
        assert!(
            of_target.lines().any(|line| line == module),
            "`{module}` is missing in fuzz/fuzz_targets/sessions.rs"
        );
    }
    let manifest = include_str!("../Cargo.toml");
    let (_, rest) = manifest.split_once("[dependencies]\n").unwrap();
    let (dependencies, _) = rest.split_once("\n[").unwrap();
    for name in dependencies.lines().filter_map(|line| line.split(['.', ' ']).next()) {
        let has =
            include_str!("../fuzz/Cargo.toml").lines().any(|line| line.starts_with(&format!("{name} = ")));
        // Signals are handled in `main` alone.
        assert!(has || name.is_empty() || name == "signal-hook", "`{name}` is missing in fuzz/Cargo.toml");
    }
}
