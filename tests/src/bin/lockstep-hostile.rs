//! The server that lies, as a program, so that any client can be run against it (`tests/hostile/README.md`).

use lockstep_tests::hostile::Hostile;
use std::io::{Read as _, Write as _};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut out = std::io::stdout();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstream] = arguments.as_slice() else {
        let _ = writeln!(std::io::stderr(), "usage: lockstep-hostile LISTEN UPSTREAM, both as address:port");
        return ExitCode::from(2);
    };
    let hostile = Hostile::listen(listen);
    hostile.set_upstream(upstream);
    let _ = writeln!(out, "listening on {}", hostile.origin);
    let _ = out.flush();
    // It ends when its standard input closes.
    let mut rest = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut rest);
    ExitCode::SUCCESS
}
