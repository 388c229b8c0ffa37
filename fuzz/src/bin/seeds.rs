//! Writes the inputs to begin with to `corpus/<target>`; docs/FUZZING.md.

fn main() -> std::io::Result<()> {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (target, name, bytes) in lockstep_fuzz::targets::seeds() {
        let folder = corpus.join(target);
        std::fs::create_dir_all(&folder)?;
        // Two of one name are told apart by their length.
        std::fs::write(folder.join(format!("{}-{}", name.replace(' ', "-"), bytes.len())), bytes)?;
    }
    Ok(())
}
