//! TLS with the real program: its flags, and a new certificate at SIGHUP.

use crate::program::{Running, command, poll};
use crate::server::Server;
use crate::world::Folder;
use lockstep_tests::tls::Certificate;

#[test]
fn a_hang_up_brings_the_new_certificate() {
    let folder = Folder::new();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let (old, new) = (Certificate::default(), Certificate::default());
    old.write(&cert, &key);
    let settings =
        [("LOCKSTEP_TLS_CERT", cert.to_str().unwrap()), ("LOCKSTEP_TLS_KEY", key.to_str().unwrap())];
    let mut server = Server::start(folder.path(), &settings);
    assert_eq!(server.origin, format!("https://{}", server.address()));
    let address = server.address().parse().unwrap();
    let answer = old.connect(address).unwrap().get("/healthz").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    new.write(&cert, &key);
    server.hang_up();
    assert!(poll(20, || new.connect(address).is_ok()), "{}", std::fs::read_to_string(&server.log).unwrap());
    assert!(old.connect(address).is_err());
    assert!(server.stop().unwrap().success());
}

#[test]
fn flags_go_before_the_environment_and_half_a_pair_is_refused() {
    let folder = Folder::new();
    let serve = |arguments: &[&str], settings: &[(&str, &str)]| {
        let mut command = command("lockstep-server");
        command.current_dir(folder.path()).env("LOCKSTEP_LISTEN", "127.0.0.1:0").arg("serve");
        command.args(arguments).envs(settings.iter().copied());
        Running::start(command, folder.path(), "").done()
    };
    serve(&["--tls-cert", "a.pem"], &[]).ends(2, &["tls_key: LOCKSTEP_TLS_CERT is set"]);
    serve(&[], &[("LOCKSTEP_TLS_KEY", "b.pem")]).ends(2, &["tls_cert: LOCKSTEP_TLS_KEY is set"]);
    let environment = [("LOCKSTEP_TLS_CERT", "c.pem"), ("LOCKSTEP_TLS_KEY", "d.pem")];
    serve(&["--tls-cert", "a.pem"], &environment).ends(1, &["no TLS with a.pem"]);
    assert!(!folder.path().join("lockstep-data").exists());
}
