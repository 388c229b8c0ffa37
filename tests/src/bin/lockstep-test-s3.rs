//! The tests' S3 server as a program, for `scripts/demo --s3`: keeps everything below a folder, prints the settings
//! of a server that uses it, and ends when its standard input closes.

use lockstep_tests::s3::S3;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut out = std::io::stdout();
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        let _ = writeln!(std::io::stderr(), "usage: lockstep-test-s3 FOLDER");
        return ExitCode::from(2);
    };
    let s3 = S3::start(&folder);
    for (name, value) in s3.environment("demo") {
        let _ = writeln!(out, "export {name}={value}");
    }
    let _ = out.flush();
    let mut rest = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut rest);
    ExitCode::SUCCESS
}
