//! Measures sync with the real client library against the real server program; called by `scripts/bench sync`.

use lockstep_tests::bench::{self, Plan};

fn main() {
    bench::run(&Plan::from_environment());
}
