//! What becomes of pictures that the server has not got, and of files that nothing needs.

use crate::device::Device;
use crate::server::Server;
use lockstep_merge::Policies;
use serde_json::json;
use std::fs::{File, read_dir, rename};
use std::path::Path;
use std::time::{Duration, SystemTime};

fn names(folder: &Path) -> Vec<String> {
    let entries = read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn age(path: &Path) {
    let old = SystemTime::now() - Duration::from_hours(25);
    File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
}

#[tokio::test]
async fn pictures_that_the_server_lost_are_sent_again_and_orphans_go() {
    let folder = std::env::temp_dir().join(format!("lockstep-objects-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let mut server = Server::start(&folder, &[]);
    let policies =
        Policies::from_json(include_str!("../../merge/tests/companions/mood-journal.json")).unwrap();
    let mut device = Device::join(&folder.join("a"), &server.origin, "a", &policies, true).await;
    let mut pictures = Vec::new();
    for id in ["one", "two"] {
        let picture = device.photo(id.as_bytes());
        device
            .put("journal-entry", id, &json!({ "photos": [picture.blob.to_string()] }), vec![picture.clone()])
            .await;
        pictures.push(picture);
    }
    // As if they had been sent, and the server had not kept them.
    let (waiting, held) = (device.objects("waiting"), device.objects("held"));
    std::fs::create_dir_all(&held).unwrap();
    for picture in &pictures {
        let name = picture.blob.to_string();
        rename(waiting.join(&name), held.join(&name)).unwrap();
    }
    device.sync().await;
    assert_eq!((names(&waiting).len(), names(&held).len()), (0, 2));
    for (picture, id) in pictures.iter().zip(["one", "two"]) {
        assert_eq!(device.contents(picture, true).await, id.as_bytes());
    }
    // A draft of today stays; what nobody named for a day goes, and so does what was cut off.
    let (draft, orphan) = (device.photo(b"draft"), device.photo(b"orphan"));
    age(&waiting.join(orphan.blob.to_string()));
    for part in ["old.part", "new.part"] {
        std::fs::write(waiting.join(part), "cut off").unwrap();
    }
    age(&waiting.join("old.part"));
    device.settle().await;
    let mut left = names(&waiting);
    left.sort();
    let mut want = vec![draft.blob.to_string(), "new.part".to_owned()];
    want.sort();
    assert_eq!(left, want);
    drop(device);
    server.kill();
    std::fs::remove_dir_all(&folder).unwrap();
}
