//! Writes the inputs to begin with to `corpus/<target>`; docs/FUZZING.md.

fn main() -> std::io::Result<()> {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (number, (target, name, bytes)) in lockstep_fuzz::targets::seeds().into_iter().enumerate() {
        let folder = corpus.join(target);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(format!("{number:02}-{}", name.replace(' ', "-"))), bytes)?;
    }
    Ok(())
}
