//! What is cleaned, and what gets which name.

use super::*;

fn folder() -> (std::path::PathBuf, Arc<Folder>) {
    let path =
        std::env::temp_dir().join(format!("lockstep-place-{}", crate::rng::hex(&crate::rng::bytes::<8>())));
    std::fs::create_dir(&path).unwrap();
    let folder = Arc::new(Folder::open(&path).unwrap());
    (path, folder)
}

fn doc() -> FileDoc {
    FileDoc {
        source: lockstep_proto::id::SourceId::from_bytes([1; 16]),
        path: b"f".to_vec().into(),
        kind: lockstep_engine::files::KIND_FILE,
        mode: 0o200,
        mtime: lockstep_engine::files::FileTime(7, 0),
        size: 1,
        inline: Vec::new().into(),
        target: Vec::new().into(),
        owner: (),
        xattrs: (),
        acl: (),
        hard_link: (),
        sparse: (),
        codec: (),
        chunker: (),
    }
}

fn written(folder: &Arc<Folder>, name: &str, replaces: bool) -> Temporary {
    let mut file = folder.begin_file(name.as_bytes(), &doc(), replaces).unwrap();
    file.write(b"x").unwrap();
    file.seal().unwrap();
    file
}

#[test]
fn only_names_of_ours_are_removed_and_none_while_another_restore_writes() {
    let (path, folder) = folder();
    let keep = [".lockstep-0123.part", "lockstep-0123456789abcdef.part", ".lockstep-0123456789abcdeF.part"];
    let ours = ".lockstep-0123456789abcdef.part";
    for name in keep.iter().chain(&[ours]) {
        std::fs::write(path.join(name), "x").unwrap();
    }
    std::fs::create_dir(path.join(".lockstep-1123456789abcdef.part")).unwrap();
    let other = Folder::open(&path).unwrap();
    other.claim();
    folder.clean().unwrap();
    assert!(path.join(ours).exists(), "another one is at work");
    drop(other);
    folder.clean().unwrap();
    assert!(!path.join(ours).exists());
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), keep.len() + 1);
    std::fs::remove_dir_all(path).unwrap();
}

#[test]
fn what_appeared_meanwhile_is_replaced_only_if_that_was_said() {
    let (path, folder) = folder();
    // Few and many: one by one, and together.
    for count in [2, 20] {
        let mut files: Vec<_> =
            (0..count).map(|number| written(&folder, &format!("{count}-{number}"), number == 0)).collect();
        std::fs::write(path.join(format!("{count}-0")), "other").unwrap();
        std::fs::write(path.join(format!("{count}-1")), "other").unwrap();
        let each = finish(&mut files).unwrap();
        assert_eq!(each.iter().filter(|named| named.is_err()).count(), 1);
        assert_eq!(each[1].as_ref().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        drop(files);
        assert_eq!(std::fs::metadata(path.join(format!("{count}-0"))).unwrap().len(), 1);
        assert_eq!(std::fs::read(path.join(format!("{count}-1"))).unwrap(), b"other");
    }
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 22, "no temporary name is left");
    std::fs::remove_dir_all(path).unwrap();
}
