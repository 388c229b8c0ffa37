//! Bad input and bad circumstances, and what is said about them.

use crate::tree::write;
use crate::world::{NAME, World};

#[test]
fn a_wrong_passphrase_and_an_unknown_name_read_the_same() {
    let world = World::new();
    world.signup("a");
    let wrong = world.secret("wrong", "not the passphrase");
    let login = |name: &str, passphrase: &str| {
        world.device("b").run(&["login", "--name", name, "--passphrase-file", passphrase])
    };
    let known = login(NAME, &wrong);
    let unknown = login("nobody", &world.text("passphrase"));
    assert_eq!(known.status, Some(5), "{known:?}");
    assert_eq!((known.status, &known.out, &known.err), (unknown.status, &unknown.out, &unknown.err));
    let recover = |name: &str| {
        let kit = world.text("kit");
        let arguments = [
            "recover",
            "--name",
            name,
            "--recovery-key-file",
            &kit,
            "--passphrase-file",
            "passphrase",
            "--kit",
            "kit-x",
        ];
        world.device("b").run(&arguments)
    };
    recover("nobody").ends(5, &["the account name or the recovery key is wrong"]);
    // The home that failed is as new.
    world.login("b").ok(&["status"]);
}

#[test]
fn a_server_that_is_down_is_named() {
    let mut world = World::new();
    let a = world.signup("a");
    write(&world.path("docs/f"), "1");
    a.backup("docs");
    world.server.stop();
    let address = world.server.address().to_owned();
    for arguments in [&["backup", "docs"][..], &["restore", "out"], &["status"]] {
        a.run(arguments).ends(4, &[&address, "can not be reached"]);
    }
    world.device("b").try_login(&world.text("passphrase")).ends(4, &[&address]);
    a.ok(&["whoami"]);
    world.server.restart();
    a.ok(&["status"]);
}

#[test]
fn plain_http_to_elsewhere_is_refused_before_anything_is_sent() {
    let world = World::new();
    let b = world.device("b");
    let passphrase = world.text("passphrase");
    for server in ["http://10.0.0.1", "http://localhost.example.org", "http://127.0.0.1.example.org:8484"] {
        let login = ["login", "--name", NAME, "--passphrase-file", &passphrase, "--server", server];
        b.run(&login).ends(2, &["--insecure-http", server]);
        let signup = ["signup", "--name", NAME, "--passphrase-file", &passphrase, "--server", server];
        b.run(&signup).ends(2, &["--insecure-http"]);
    }
    for server in ["ftp://127.0.0.1", "http://127.0.0.1/path", "http://u@127.0.0.1", "nonsense", ""] {
        let login = ["login", "--name", NAME, "--passphrase-file", &passphrase, "--server", server];
        b.run(&login).ends(2, &[]);
    }
    assert!(!b.home.exists(), "nothing was made");
}

#[test]
fn another_name_of_the_same_server_is_refused() {
    let world = World::new();
    let other = world.server.origin.replace("127.0.0.1", "localhost");
    let passphrase = world.text("passphrase");
    let login = ["login", "--name", NAME, "--passphrase-file", &passphrase, "--server", &other];
    world.device("b").run(&login).ends(2, &[&world.server.origin, "LOCKSTEP_PUBLIC_URL"]);
}

#[test]
fn names_and_homes_that_are_taken_are_refused() {
    let world = World::new();
    let a = world.signup("a");
    let sign_up = |device: &str, name: &str, kit: &str| {
        let passphrase = world.text("passphrase");
        let arguments = ["signup", "--name", name, "--passphrase-file", &passphrase, "--kit", kit];
        world.device(device).run(&arguments)
    };
    sign_up("b", NAME, "kit-b").ends(11, &["taken"]);
    sign_up("b", "ADA", "kit-b2").ends(11, &["taken"]);
    sign_up("a", "other", "kit-c").ends(2, &["belongs to account ada", "another --home"]);
    sign_up("b", "no spaces", "kit-c").ends(2, &["1 to 64 characters"]);
    sign_up("b", "other", "kit").ends(2, &["exists"]);
    let passphrase = world.text("passphrase");
    a.run(&["login", "--name", "other", "--passphrase-file", &passphrase])
        .ends(2, &["belongs to account ada"]);
    a.ok(&["status"]);
    let weak = world.secret("weak", "short");
    let arguments = ["signup", "--name", "other", "--passphrase-file", &weak, "--kit", "kit-c"];
    world.device("c").run(&arguments).ends(2, &["10 characters"]);
    assert!(!world.path("kit-c").exists());
}

#[test]
fn a_home_without_an_account_says_what_to_do() {
    let world = World::new();
    write(&world.path("docs/f"), "1");
    let x = world.device("x");
    for arguments in [
        &["whoami"][..],
        &["status"],
        &["snapshots"],
        &["backup", "docs"],
        &["restore", "out"],
        &["ls"],
        &["check"],
        &["fingerprint"],
        &["logout"],
        &["vault", "list"],
        &["record", "list", "--type", "note"],
    ] {
        x.run(arguments).ends(2, &["there is no account in", "lockstep signup", "lockstep login"]);
    }
    assert!(!world.path("out").exists());
    assert!(!x.home.exists(), "looking makes no home");
    x.run(&["login", "--name", NAME]).ends(2, &["--passphrase-file"]);
    x.run(&["login", "--name", NAME, "--passphrase-file", "nowhere"]).ends(1, &["nowhere"]);
}

#[test]
fn what_is_not_there_is_not_backed_up() {
    let world = World::new();
    let a = world.signup("a");
    write(&world.path("docs/f"), "1");
    a.run(&["backup", "docs", "nowhere"]).ends(1, &["nowhere"]);
    // Named before anything was done.
    a.run(&["snapshots"]).ends(11, &["files"]);
    a.run(&["restore", "out"]).ends(11, &[]);
    a.run(&["backup"]).ends(2, &[]);
    a.backup("docs");
    a.run(&["backup", "docs", "--vault", "line\nbreak"]).ends(2, &["control"]);
    a.run(&["--json", "backup", "nowhere"]).ends(1, &["\"status\":1"]);
}

#[test]
fn a_server_with_nothing_on_its_disk_is_refused() {
    let mut world = World::new();
    let a = world.signup("a");
    write(&world.path("docs/f"), "1");
    a.backup("docs");
    a.put("n", "1").ok();
    let lost = world.path("lost");
    world.server.back_up(&lost);
    world.server.lose_everything();
    for arguments in [&["backup", "docs"][..], &["snapshots"], &["status"], &["restore", "out"]] {
        let done = a.run(arguments);
        assert!(matches!(done.status, Some(5 | 6)), "{done:#?}");
    }
    a.put("n", "2").ends(5, &["does not accept this device"]);
    a.try_login(&world.text("passphrase")).ends(5, &["the account name or the passphrase is wrong"]);
    a.ok(&["whoami"]);
    // When the data is back, so is everything.
    world.server.put_back(&lost, true, true);
    assert_eq!(a.get("n"), "1");
    a.backup("docs");
}
