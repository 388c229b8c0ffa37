//! Recovery kits, as lines and as a page: what is read stands there, what is written is read as it was, and no name
//! becomes anything but text in a page.

use super::edit::Input;
use super::fixture::fixture;
use super::seeds::checkpoint;
use super::texts::compact;
use lockstep_client::kit::{Kit, page, parse, text};
use std::sync::OnceLock;

/// The lines of a kit for a server and a name.
pub(super) fn lines(server: &str, name: &str) -> String {
    let fixture = fixture();
    text(server, name, &fixture.identity.to_bytes(), &fixture.recovery, &checkpoint()).to_string()
}

/// A real kit: lines, and a page.
pub(super) fn kits() -> &'static [String; 2] {
    static KITS: OnceLock<[String; 2]> = OnceLock::new();
    KITS.get_or_init(|| {
        let lines = lines("https://sync.example.org", "ada");
        let page = page::page(&lines).unwrap().to_string();
        [lines, page]
    })
}

/// What a text is read as stands in it.
fn check(kit: &Kit, text: &str) {
    let lines = if page::is_page(text) { page::lines(text).unwrap().to_string() } else { text.to_owned() };
    let all = compact(&lines);
    assert!(all.contains(&compact(&kit.recovery.to_text())), "another recovery key was read");
    assert!(kit.account.is_none_or(|account| lines.contains(&account.to_string())), "another account");
    let checkpoint = kit.checkpoint.as_ref().map(|checkpoint| compact(&checkpoint.to_text()));
    assert!(checkpoint.is_none_or(|checkpoint| all.contains(&checkpoint)), "another checkpoint");
}

fn read(text: &str) {
    match parse(text) {
        Ok(kit) => check(&kit, text),
        Err(error) => {
            let said = error.to_string();
            assert!(said.len() < 200, "a message has a bound, whatever came: {said}");
        }
    }
    // A page that is made of whatever lines holds these lines.
    if !page::is_page(text)
        && let Ok(page) = page::page(text)
    {
        assert_eq!(*page::lines(&page).unwrap(), text);
    }
}

/// A kit for whatever server and name, each one line.
fn write(server: &str, name: &str) {
    let written = lines(server, name);
    let page = page::page(&written).unwrap();
    assert_eq!(*page::lines(&page).unwrap(), written, "the page holds the lines");
    for form in [written.as_str(), page.as_str()] {
        let kit = parse(form).unwrap();
        assert_eq!(kit.recovery.to_text(), fixture().recovery.to_text());
        assert_eq!((kit.account, kit.checkpoint), (Some(fixture().account), Some(checkpoint())));
    }
    let marks = |page: &str| page.chars().filter(|letter| "<>\"".contains(*letter)).count();
    assert_eq!(marks(&page), marks(&kits()[1]), "a name is text in the page");
}

/// A real kit, spoilt; a text; or a kit for a server and a name that the input makes up.
pub(super) fn target(data: &[u8]) {
    let mut input = Input(data);
    match input.byte() % 4 {
        which @ (0 | 1) => {
            let mut bytes = kits()[usize::from(which)].clone().into_bytes();
            input.spoil(&mut bytes);
            read(&String::from_utf8_lossy(&bytes));
        }
        2 => read(&String::from_utf8_lossy(input.0)),
        _ => {
            let len = usize::from(input.byte());
            let [server, name] =
                [input.take(len), input.0].map(|bytes| String::from_utf8_lossy(bytes).replace('\n', " "));
            write(&server, &name);
        }
    }
}
