//! Whether comparisons take longer for one input than for another: Welch's t-test over two classes of inputs in random order,
//! as in dudect (Reparaz, Balasch, Verbauwhede, 2017). docs/TIMING.md has the command, the numbers of one run and what they say.
//! Usage: `timing [MEASUREMENTS]`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::needless_pass_by_value,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a program to be run by hand"
)]

use lockstep_client_crypto::recovery::RecoveryKey;
use lockstep_client_crypto::seal;
use lockstep_client_crypto::secret::SecretKey;
use lockstep_proto::{Digest, label};
use rand::SeedableRng as _;
use rand::rand_core::Rng as _;
use rand::rngs::ChaCha20Rng;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

/// Calls that one measurement takes together: a clock tick is longer than a comparison.
const BATCH: usize = 16;
/// |t| from which on two classes are told apart; dudect's.
const TOLD_APART: f64 = 4.5;

/// Mean and variance as measurements come (Welford).
#[derive(Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn take(&mut self, value: f64) {
        self.count += 1.0;
        let off = value - self.mean;
        self.mean += off / self.count;
        self.squares += off * (value - self.mean);
    }

    fn variance(&self) -> f64 {
        self.squares / (self.count - 1.0)
    }
}

/// Welch's t of the measurements up to a bound.
fn welch(samples: &[(bool, u64)], at_most: u64) -> (f64, f64) {
    let mut classes = [Moments::default(), Moments::default()];
    for (class, nanos) in samples.iter().filter(|(_, nanos)| *nanos <= at_most) {
        classes[usize::from(*class)].take(*nanos as f64);
    }
    let [left, right] = classes;
    let error = (left.variance() / left.count + right.variance() / right.count).sqrt();
    ((left.mean - right.mean) / error, (left.mean - right.mean) / BATCH as f64)
}

/// Measures `work` over inputs of two classes, drawn in random order, and prints the largest |t| of all crops.
fn measure<T>(name: &str, count: usize, inputs: [Vec<T>; 2], mut work: impl FnMut(&T)) {
    let mut dice = ChaCha20Rng::from_seed([9; 32]);
    let mut samples = Vec::with_capacity(count);
    for _ in 0..count {
        let class = dice.next_u32() & 1 == 1;
        let inputs = &inputs[usize::from(class)];
        let input = &inputs[dice.next_u32() as usize % inputs.len()];
        let begin = Instant::now();
        for _ in 0..BATCH {
            work(black_box(input));
        }
        samples.push((class, begin.elapsed().as_nanos() as u64));
    }
    // The first ones warm up.
    samples.drain(..count / 100);
    let mut sorted: Vec<u64> = samples.iter().map(|(_, nanos)| *nanos).collect();
    sorted.sort_unstable();
    let crops = [0.5, 0.75, 0.9, 0.95, 0.99, 1.0];
    let results = crops.map(|crop| {
        let place = ((sorted.len() - 1) as f64 * crop) as usize;
        welch(&samples, sorted[place])
    });
    // Where a crop holds one class only there is no number.
    let numbers = results.into_iter().filter(|(t, _)| t.is_finite());
    let (t, difference) = numbers.max_by(|a, b| a.0.abs().total_cmp(&b.0.abs())).unwrap();
    let verdict = if t.abs() >= TOLD_APART { "told apart" } else { "not told apart" };
    let median = sorted[sorted.len() / 2] as f64 / BATCH as f64;
    println!("| {name} | {count} | {median:.1} | {:.2} | {difference:.3} | {verdict} |", t.abs());
}

fn flipped(bytes: &[u8; 32], place: usize) -> [u8; 32] {
    let mut other = *bytes;
    other[place] ^= 1;
    other
}

/// Ends at the first difference: what the method has to tell apart.
fn early(left: &[u8; 32], right: &[u8; 32]) -> bool {
    for (left, right) in left.iter().zip(right) {
        if black_box(left) != black_box(right) {
            return false;
        }
    }
    true
}

fn single<T>(inputs: [T; 2]) -> [Vec<T>; 2] {
    inputs.map(|input| vec![input])
}

fn main() {
    let count = std::env::args().nth(1).map_or(1_000_000, |text| text.parse().unwrap());
    println!("| what | measurements | median ns a call | largest abs t | difference ns a call | verdict |");
    println!("|---|---|---|---|---|---|");
    digests(count);
    commitments(count / 10);
    recovery_keys(count / 10);
    tokens(count / 10);
}

fn digests(count: usize) {
    let secret = *Digest::of(label::COMMIT, b"secret").as_bytes();
    let both = [flipped(&secret, 0), flipped(&secret, 31)];
    let name = "control: a loop that ends at the first difference; first byte differs, or the last";
    measure(name, count, single(both), |input| {
        black_box(early(&secret, input));
    });
    measure("control: the same input in both classes", count, single([secret, secret]), |input| {
        black_box(early(&secret, input));
    });
    let digest = Digest::from_bytes(secret);
    let name = "`Digest == Digest`; first byte differs, or the last";
    measure(name, count, single(both.map(Digest::from_bytes)), |input| {
        black_box(digest == *input);
    });
    let name = "`Digest == Digest`; last byte differs, or none";
    measure(name, count, single([both[1], secret].map(Digest::from_bytes)), |input| {
        black_box(digest == *input);
    });
}

fn commitments(count: usize) {
    let key = SecretKey::from_bytes(&[7; 32]);
    let (nonce, header) = ([3; 24], b"header");
    let (commitment, sealed) = seal::seal(&key, label::ROOT_WRAP, header, &nonce, b"plaintext");
    let wrong = [0, 31].map(|place| Digest::from_bytes(flipped(commitment.as_bytes(), place)));
    let name = "`seal::open`; commitment wrong in the first byte, or the last";
    measure(name, count, single(wrong), |input| {
        black_box(seal::open(&key, label::ROOT_WRAP, header, &nonce, input, &sealed).is_ok());
    });
    let keys =
        [[0; 32], *Digest::of(label::COMMIT, b"key").as_bytes()].map(|key| SecretKey::from_bytes(&key));
    measure("`seal::open` with a wrong key; zeros, or random", count, single(keys), |input| {
        black_box(seal::open(input, label::ROOT_WRAP, header, &nonce, &commitment, &sealed).is_ok());
    });
}

fn recovery_keys(count: usize) {
    let text = |seed: u8| {
        let key = RecoveryKey::generate(&mut ChaCha20Rng::from_seed([seed; 32]));
        key.to_text().replace(' ', "")
    };
    let zeros = lockstep_proto::recovery::recovery_key_text(&[0; 32]).replace(' ', "");
    let name = "`RecoveryKey::parse` of a right text; a key of zeros, or random ones";
    measure(name, count, [vec![zeros], (0..100).map(text).collect()], |input| {
        black_box(RecoveryKey::parse(input).is_ok());
    });
    // Two wrong letters: no place is named.
    let typed = |first: usize| {
        let mut typed = text(1).into_bytes();
        for place in [first, first + 1] {
            typed[place] = if typed[place] == b'q' { b'p' } else { b'q' };
        }
        String::from_utf8(typed).unwrap()
    };
    let name = "`RecoveryKey::parse`; two letters wrong near the beginning, or near the end";
    measure(name, count, single([typed(5), typed(59)]), |input| {
        black_box(RecoveryKey::parse(input).is_ok());
    });
}

/// As the server looks a session up: by the hash of the token, in an ordered index.
fn tokens(count: usize) {
    let token = |n: u32| *Digest::of(label::COMMIT, &n.to_be_bytes()).as_bytes();
    let index: BTreeMap<Digest, u32> =
        (0..10_000).map(|n| (Digest::of(label::LOCAL_SESSION, &token(n)), n)).collect();
    let near = (0..2_000).map(|n| flipped(&token(n), 31)).collect();
    let far = (0..2_000).map(|n| token(n + 1_000_000)).collect();
    let name = "bearer token, hashed and looked up among 10,000; 31 bytes of a real one right, or none";
    measure(name, count, [near, far], |input| {
        black_box(index.get(&Digest::of(label::LOCAL_SESSION, input)));
    });
}
