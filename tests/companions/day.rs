//! Playing a day.

use crate::device::Device;
use crate::server::Server;
use lockstep_client_crypto::content::BlobRef;
use lockstep_merge::Policies;
use lockstep_proto::id::DeviceId;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A day, as its file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Day {
    /// What happens, in order: a device (or "all"), a verb, and what it is done to.
    steps: Vec<Vec<Json>>,
    /// Documents in the end, by type and id; null is one that is not there.
    end: BTreeMap<String, BTreeMap<String, Json>>,
    /// What waits for a decision in the end.
    #[serde(default)]
    open: Vec<Json>,
}

/// Devices of the day, in the order in which they join.
const DEVICES: [&str; 3] = ["phone", "laptop", "tablet"];
/// Between two steps: clocks of one machine tell them apart.
const STEP: Duration = Duration::from_millis(3);

struct Play {
    server: Server,
    folder: PathBuf,
    policies: Policies,
    devices: BTreeMap<String, Device>,
    /// Pictures by their label.
    photos: BTreeMap<String, (BlobRef, Vec<u8>)>,
    lost: Option<DeviceId>,
}

/// Lives through a day under policies, and compares what every device has in the end.
pub(crate) async fn live(policies: &str, day: &str) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("lockstep-day-{}-{number}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).unwrap();
    let day: Day = serde_json::from_str(day).unwrap();
    let mut play = Play {
        server: Server::start(&folder, &[]),
        folder,
        policies: Policies::from_json(policies).unwrap(),
        devices: BTreeMap::new(),
        photos: BTreeMap::new(),
        lost: None,
    };
    for name in DEVICES {
        play.join(name).await;
    }
    for (number, step) in day.steps.iter().enumerate() {
        println!("{number}: {}", json!(step));
        play.step(step).await;
        tokio::time::sleep(STEP).await;
    }
    assert!(play.lost.is_some(), "a phone is lost on every day");
    play.sync_all().await;
    // A new device has what the others have.
    play.join("new").await;
    play.compare(&day).await;
    play.devices.clear();
    play.server.kill();
    std::fs::remove_dir_all(&play.folder).unwrap();
}

impl Play {
    async fn join(&mut self, name: &str) {
        let home = self.folder.join(name);
        let first = self.devices.is_empty();
        let device = Device::join(&home, &self.server.origin, name, &self.policies, first).await;
        self.devices.insert(name.to_owned(), device);
    }

    /// Until nobody has anything to send.
    async fn sync_all(&mut self) {
        for _ in 0..2 {
            for device in self.devices.values_mut() {
                device.sync().await;
            }
        }
    }

    async fn step(&mut self, step: &[Json]) {
        let word = |index: usize| step[index].as_str().unwrap_or_else(|| panic!("{index} of {step:?}"));
        let (who, verb) = (word(0), word(1));
        if who == "all" {
            assert_eq!(verb, "sync");
            return self.sync_all().await;
        }
        if verb == "lost" {
            return self.lose(who, word(2)).await;
        }
        let device = self.devices.get_mut(who).unwrap_or_else(|| panic!("there is no {who}"));
        match verb {
            "sync" => device.sync().await,
            "put" => device.put(word(2), word(3), &step[4], Vec::new()).await,
            "edit" => device.edit(word(2), word(3), &step[4], Vec::new()).await,
            "delete" => device.delete(word(2), word(3)).await,
            "resolve" => device.resolve(&step[2], &step[3]).await,
            "undo" => device.undo(word(2), word(3), word(4)).await,
            "photo" => {
                let (record_type, id, label) = (word(2), word(3), word(4).to_owned());
                let contents = picture(&label, step[5].as_u64().unwrap());
                let reference = device.photo(&contents);
                let mut photos = device.shown(record_type, id).unwrap()["photos"].clone();
                if photos.is_null() {
                    photos = json!([]);
                }
                photos.as_array_mut().unwrap().push(json!(reference.blob.to_string()));
                device.edit(record_type, id, &json!({ "photos": photos }), vec![reference.clone()]).await;
                self.photos.insert(label, (reference, contents));
            }
            other => panic!("nobody knows how to {other}"),
        }
    }

    /// A device is gone with all that it had not sent, and another one shuts it out.
    async fn lose(&mut self, who: &str, by: &str) {
        let lost = self.devices.remove(who).unwrap().id();
        std::fs::remove_dir_all(self.folder.join(who)).unwrap();
        self.devices.get_mut(by).unwrap().revoke(lost).await;
        self.lost = Some(lost);
    }

    /// Ids of pictures become their labels.
    fn labelled(&self, mut document: Json) -> Json {
        if let Some(photos) = document.get_mut("photos").and_then(Json::as_array_mut) {
            for photo in photos {
                let id = photo.as_str().unwrap();
                let known = self.photos.iter().find(|(_, (reference, _))| reference.blob.to_string() == id);
                *photo = json!(known.unwrap_or_else(|| panic!("an unknown picture {id}")).0);
            }
        }
        document
    }

    async fn compare(&self, day: &Day) {
        let types: Vec<&str> = day.end.keys().map(String::as_str).collect();
        let new = &self.devices["new"];
        let all = new.everything(&types);
        let wanted =
            day.end.values().flat_map(BTreeMap::values).filter(|document| !document.is_null()).count();
        for (name, device) in &self.devices {
            for (record_type, documents) in &day.end {
                for (id, want) in documents {
                    let shown =
                        device.shown(record_type, id).map_or(Json::Null, |shown| self.labelled(shown));
                    assert_eq!(shown, *want, "{record_type} {id} on {name}");
                }
            }
            let mut open = day.open.clone();
            open.sort_by_key(ToString::to_string);
            assert_eq!(device.conflicts(), open, "on {name}");
            assert_eq!(device.everything(&types), all, "{name} has what the new device has");
            assert_eq!(all.len(), wanted, "no document is there beside these");
            device.check().await;
        }
        for (label, (reference, contents)) in &self.photos {
            // One that went with the lost device is nowhere.
            let is_named =
                all.iter().any(|(_, _, document)| document.to_string().contains(&reference.blob.to_string()));
            if is_named {
                assert!(new.contents(reference, false).await == *contents, "{label}, on demand");
                let laptop = &self.devices["laptop"];
                assert!(laptop.contents(reference, false).await == *contents, "{label}");
                assert!(
                    laptop.contents(reference, true).await == *contents,
                    "{label}, let go and fetched again"
                );
            }
        }
    }
}

/// A picture that does not compress.
fn picture(label: &str, size: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(size).unwrap()];
    blake3::Hasher::new().update(label.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}
