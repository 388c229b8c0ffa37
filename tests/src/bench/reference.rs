//! What this machine does, in the same run: the figures that everything else is held against.

use super::figures::{heading, row};
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305};
use ed25519_dalek::{Signer as _, SigningKey};
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

const BLOCK_BYTES: usize = 1 << 20;
const BLOCKS: usize = 256;
const FSYNCS: usize = 200;
/// A document of 500 bytes, padded.
const PLAINTEXT_BYTES: usize = 640;
const PIECES: usize = 20_000;

pub(super) fn measure(folder: &Path, runs: usize) {
    heading("Reference: this machine in this run");
    let each = |work: &dyn Fn() -> f64| -> Vec<f64> { (0..runs).map(|_| work()).collect() };
    row("sequential write, synced", &each(&|| write(folder)), "MiB/s");
    row("fsync after a byte", &each(&|| fsync(folder)), "ms");
    row("XChaCha20-Poly1305, 640 bytes, one core", &each(&seal), "/s");
    row("BLAKE3 of 1 KiB, one core", &each(&|| hash(1024, 32)), "/s");
    row("BLAKE3 to 2,048 bytes (a state element), one core", &each(&|| hash(64, 2048)), "/s");
    row("Ed25519, strict verification, one core", &each(&verify), "/s");
}

fn write(folder: &Path) -> f64 {
    let block = vec![0x5a; BLOCK_BYTES];
    let path = folder.join("sequential");
    let begin = Instant::now();
    let mut file = std::fs::File::create(&path).unwrap();
    (0..BLOCKS).for_each(|_| file.write_all(&block).unwrap());
    file.sync_all().unwrap();
    let rate = BLOCKS as f64 / begin.elapsed().as_secs_f64();
    std::fs::remove_file(path).unwrap();
    rate
}

fn fsync(folder: &Path) -> f64 {
    let path = folder.join("fsync");
    let mut file = std::fs::File::create(&path).unwrap();
    let begin = Instant::now();
    for _ in 0..FSYNCS {
        file.write_all(b"x").unwrap();
        file.sync_data().unwrap();
    }
    let taken = begin.elapsed().as_secs_f64() * 1000.0 / FSYNCS as f64;
    std::fs::remove_file(path).unwrap();
    taken
}

fn seal() -> f64 {
    let cipher = XChaCha20Poly1305::new(&[7; 32].into());
    let plaintext = vec![1; PLAINTEXT_BYTES];
    let begin = Instant::now();
    for _ in 0..PIECES {
        let sealed = cipher.encrypt(&[9; 24].into(), Payload { msg: &plaintext, aad: &[3; 200] }).unwrap();
        std::hint::black_box(sealed);
    }
    PIECES as f64 / begin.elapsed().as_secs_f64()
}

fn hash(from: usize, to: usize) -> f64 {
    let (input, mut output) = (vec![1; from], vec![0; to]);
    let begin = Instant::now();
    for _ in 0..PIECES {
        let mut hasher = blake3::Hasher::new_derive_key("lockstep bench");
        hasher.update(&input).finalize_xof().fill(&mut output);
        std::hint::black_box(&output);
    }
    PIECES as f64 / begin.elapsed().as_secs_f64()
}

fn verify() -> f64 {
    let key = SigningKey::from_bytes(&[7; 32]);
    let signature = key.sign(b"a commit");
    let public = key.verifying_key();
    let begin = Instant::now();
    for _ in 0..PIECES / 10 {
        public.verify_strict(b"a commit", &signature).unwrap();
    }
    (PIECES / 10) as f64 / begin.elapsed().as_secs_f64()
}
