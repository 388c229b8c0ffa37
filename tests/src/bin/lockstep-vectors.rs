//! Makes the test vectors of `vectors/golden` and `vectors/reject` from fixed randomness. `vectors/README.md` has the format.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut out = std::io::stdout();
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        let _ = writeln!(std::io::stderr(), "usage: lockstep-vectors FOLDER");
        return ExitCode::from(2);
    };
    for (name, text) in lockstep_tests::vectors::files() {
        let path = folder.join(&name);
        let written = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        if let Err(error) = written.and_then(|()| std::fs::write(&path, text)) {
            let _ =
                writeln!(std::io::stderr(), "lockstep-vectors: {} is not written: {error}", path.display());
            return ExitCode::FAILURE;
        }
        let _ = writeln!(out, "{name}");
    }
    ExitCode::SUCCESS
}
