//! The bodies of the fuzz targets, on their corpus and on bytes from seeds: random ones, and the corpus with changes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tests"
)]

#[path = "../fuzz/bodies.rs"]
mod bodies;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Seeds of each kind; more with `REACTOR_FUZZ_SEEDS=N`.
const SEEDS: u64 = 20_000;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn random(rng: &mut fastrand::Rng) -> Vec<u8> {
    // Few values: what a parser looks for is frequent among them.
    let values = rng.choice([4, 16, 256]).unwrap();
    (0..rng.usize(..120)).map(|_| rng.u16(..values).to_le_bytes()[0]).collect()
}

/// One file of the corpus, with bytes changed, cut out, doubled, or from another file.
fn changed(rng: &mut fastrand::Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = rng.choice(corpus).unwrap().clone();
    for _ in 0..rng.usize(1..5) {
        let at = rng.usize(..=bytes.len());
        match rng.u8(..5) {
            0 if at < bytes.len() => bytes[at] = rng.u8(..),
            1 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
            2 => bytes.truncate(at),
            3 => {
                let other = rng.choice(corpus).unwrap();
                bytes.extend_from_slice(&other[rng.usize(..other.len())..]);
            }
            _ => bytes.insert(at, rng.u8(..)),
        }
    }
    bytes
}

fn run(target: &str, body: fn(&[u8])) {
    let corpus = corpus(target);
    assert!(corpus.len() >= 10, "the corpus of {target} is there");
    corpus.iter().for_each(|bytes| body(bytes));
    let seeds = std::env::var("REACTOR_FUZZ_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(SEEDS);
    for seed in 0..seeds {
        let mut rng = fastrand::Rng::with_seed(seed);
        for bytes in [random(&mut rng), changed(&mut rng, &corpus)] {
            if catch_unwind(AssertUnwindSafe(|| body(&bytes))).is_err() {
                panic!("{target} fails for seed {seed}: {bytes:?}");
            }
        }
    }
}

#[test]
fn codecs_hold_what_they_promise_for_any_bytes() {
    run("codecs", bodies::codecs);
}

#[test]
fn proxy_headers_are_found_or_refused_whatever_the_bytes() {
    run("proxy", bodies::proxy);
}
