//! Sessions, seen and ended from another device.

use crate::world::{Device, World};
use serde_json::Value;

fn list(device: &Device) -> Vec<Value> {
    device.ok(&["--json", "session", "list"]).json().as_array().unwrap().clone()
}

fn id(session: &Value) -> &str {
    session["id"].as_str().unwrap()
}

#[test]
fn sessions_are_listed_and_ended_from_any_device() {
    let world = World::new();
    let a = world.signup("a");
    let passphrase = world.text("passphrase");
    let b = world.device("b");
    b.ok(&["login", "--name", "ada", "--passphrase-file", &passphrase, "--device-name", "the laptop"]);
    let sessions = list(&a);
    let devices: Vec<_> = sessions.iter().map(|session| session["device_name"].clone()).collect();
    assert_eq!(sessions.len(), 2, "{sessions:?}");
    assert!(devices.contains(&"the laptop".into()), "{devices:?}");
    let of_b = sessions.iter().find(|session| session["device_name"] == "the laptop").unwrap();
    assert_eq!((of_b["this"].as_bool(), of_b["used_utc"].is_u64()), (Some(false), true));
    let shown = a.ok(&["session", "list"]).out;
    assert!(shown.contains("the laptop") && shown.contains("last used 20"), "{shown}");
    assert_eq!(shown.matches("(this one)").count(), 1, "{shown}");

    let token = std::fs::read_to_string(b.home.join("session")).unwrap();
    a.ok(&["session", "revoke", &id(of_b)[..8]]);
    assert_eq!(list(&a).len(), 1);
    a.run(&["session", "revoke", id(of_b)]).ends(11, &["session list"]);
    // A device that is still enrolled gets a new session by its own key.
    b.ok(&["status"]);
    assert_ne!(std::fs::read_to_string(b.home.join("session")).unwrap(), token);
    let again = list(&b);
    assert_eq!(again.len(), 2);
    assert!(again.iter().all(|session| id(session) != id(of_b)));

    let done = b.ok(&["--json", "session", "revoke", "--others"]).json();
    assert_eq!(done["ended"].as_array().unwrap().len(), 1);
    let left = list(&b);
    assert_eq!((left.len(), left[0]["this"].as_bool()), (1, Some(true)));
    a.ok(&["status"]);
    a.run(&["session", "revoke"]).ends(2, &["<ID>"]);
    let help = a.ok(&["session", "revoke", "--help"]).out;
    assert!(help.contains("signs in again"), "{help}");
}
