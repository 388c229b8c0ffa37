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

/// Measures `work` over inputs of two classes in random order and prints the largest |t| of all crops.
fn measure<T>(name: &str, count: usize, inputs: [T; 2], mut work: impl FnMut(&T)) {
    let mut dice = ChaCha20Rng::from_seed([9; 32]);
    let mut samples = Vec::with_capacity(count);
    for _ in 0..count {
        let class = dice.next_u32() & 1 == 1;
        let input = &inputs[usize::from(class)];
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
    let (t, difference) = results.into_iter().max_by(|a, b| a.0.abs().total_cmp(&b.0.abs())).unwrap();
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

fn main() {
    let count = std::env::args().nth(1).map_or(1_000_000, |text| text.parse().unwrap());
    println!("| what | measurements | median ns a call | largest abs t | difference ns a call | verdict |");
    println!("|---|---|---|---|---|---|");
    let secret = *Digest::of(label::COMMIT, b"secret").as_bytes();
    let both = [flipped(&secret, 0), flipped(&secret, 31)];
    measure("control: a loop that ends at the first difference, first byte or last", count, both, |input| {
        black_box(early(&secret, input));
    });
    measure("control: the same input in both classes", count, [secret, secret], |input| {
        black_box(early(&secret, input));
    });
    let digest = Digest::from_bytes(secret);
    measure("`Digest == Digest`, first byte differs or last", count, both.map(Digest::from_bytes), |input| {
        black_box(digest == *input);
    });
    measure(
        "`Digest == Digest`, last byte differs or none",
        count,
        [both[1], secret].map(Digest::from_bytes),
        |input| {
            black_box(digest == *input);
        },
    );

    let key = SecretKey::from_bytes(&[7; 32]);
    let (nonce, header) = ([3; 24], b"header");
    let (commitment, sealed) = seal::seal(&key, label::ROOT_WRAP, header, &nonce, b"plaintext");
    let wrong = [0, 31].map(|place| Digest::from_bytes(flipped(commitment.as_bytes(), place)));
    measure("`seal::open`, commitment wrong in the first byte or the last", count / 10, wrong, |input| {
        black_box(seal::open(&key, label::ROOT_WRAP, header, &nonce, input, &sealed).is_ok());
    });

    let recovery = RecoveryKey::generate(&mut ChaCha20Rng::from_seed([1; 32]));
    let text = recovery.to_text().replace(' ', "");
    let typed = |place: usize| {
        let mut typed = text.clone().into_bytes();
        // Two wrong letters: no place is worked out.
        for place in [place, place + 1] {
            typed[place] = if typed[place] == b'q' { b'p' } else { b'q' };
        }
        String::from_utf8(typed).unwrap()
    };
    measure(
        "`RecoveryKey::parse`, checksum wrong by letters 6 and 7 or 60 and 61",
        count / 10,
        [typed(5), typed(59)],
        |input| {
            black_box(RecoveryKey::parse(input).is_ok());
        },
    );

    // As the server looks a session up: by the hash of the token, in an ordered index.
    let tokens: Vec<[u8; 32]> =
        (0..10_000_u32).map(|n| *Digest::of(label::COMMIT, &n.to_be_bytes()).as_bytes()).collect();
    let index: BTreeMap<Digest, u32> =
        tokens.iter().zip(0..).map(|(token, n)| (Digest::of(label::LOCAL_SESSION, token), n)).collect();
    let near = [flipped(&tokens[4711], 0), flipped(&tokens[4711], 31)];
    measure(
        "bearer token, hashed and looked up among 10,000: wrong in the first byte or the last",
        count / 10,
        near,
        |input| {
            black_box(index.get(&Digest::of(label::LOCAL_SESSION, input)));
        },
    );
}
