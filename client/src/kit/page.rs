//! The kit as a page to print: one self-contained HTML file without scripts, with the recovery key as a QR code.

use crate::error::{ClientError, Result};
use qrcodegen::{QrCode, QrCodeEcc};
use std::fmt::Write as _;
use zeroize::Zeroizing;

/// Modules of white round a QR code, without which it is not read.
const QUIET: i32 = 4;

/// What marks the lines of the kit in a page.
const BEGIN: &str = "<pre id=\"kit\">";
const END: &str = "</pre>";

const STYLE: &str = "
@page { size: A4; margin: 14mm }
* { box-sizing: border-box }
body { font: 10pt/1.4 system-ui, 'Liberation Sans', Arial, sans-serif; color: #000; background: #fff;
       max-width: 182mm; margin: 8mm auto; padding: 0 4mm }
h1 { font-size: 20pt; line-height: 1.2; margin: 0 0 1mm }
h2 { font-size: 11.5pt; margin: 4mm 0 1mm }
p, ol { margin: 0 0 2mm }
ol { padding-left: 6mm }
li { margin-bottom: 1mm }
.key { display: flex; gap: 6mm; align-items: center; border: 0.6mm solid #000; border-radius: 2mm;
       padding: 3mm 4mm; margin: 3mm 0; break-inside: avoid }
.key svg { flex: none; width: 40mm; height: 40mm }
.key b { display: block; margin-bottom: 2mm }
.words { font: 13.5pt/1.6 ui-monospace, 'Liberation Mono', monospace }
pre { font: 8pt/1.45 ui-monospace, 'Liberation Mono', monospace; white-space: pre-wrap; overflow-wrap: anywhere;
      border-top: 0.3mm solid #999; margin: 3mm 0 0; padding-top: 2mm; break-inside: avoid }
code span { white-space: nowrap }
code { font: 9pt ui-monospace, 'Liberation Mono', monospace; overflow-wrap: anywhere }
@media print { body { margin: 0; padding: 0; max-width: none } }
";

fn escaped(text: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(text.len().saturating_mul(2)));
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

fn unescaped(text: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(text.to_owned());
    for (name, letter) in [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&amp;", "&")] {
        out = Zeroizing::new(out.replace(name, letter));
    }
    out
}

/// Whether a text is a page rather than lines.
pub fn is_page(text: &str) -> bool {
    text.trim_start().get(..9).is_some_and(|begin| begin.eq_ignore_ascii_case("<!doctype"))
}

/// The lines of the kit that a page holds.
///
/// # Errors
/// [`ClientError::Usage`] if it holds none.
pub fn lines(page: &str) -> Result<Zeroizing<String>> {
    let kit = page.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END));
    let (kit, _) = kit.ok_or_else(|| {
        ClientError::Usage(
            "this page is no recovery kit; type the recovery key of the printed page into a text file, and name that"
                .into(),
        )
    })?;
    Ok(unescaped(kit))
}

/// The recovery key as a QR code: inline SVG, one path of black modules. In capitals without spaces, which takes
/// the least room and is read like any other spelling.
fn code(key: &str) -> Result<Zeroizing<String>> {
    let compact = Zeroizing::new(key.split_whitespace().collect::<String>().to_uppercase());
    let failed = |_| ClientError::Usage("the recovery key is too long for a QR code".into());
    let code = QrCode::encode_text(&compact, QrCodeEcc::Medium).map_err(failed)?;
    let size = code.size();
    let side = size + 2 * QUIET;
    let mut out = Zeroizing::new(format!(
        "<svg viewBox=\"0 0 {side} {side}\" role=\"img\" aria-label=\"The recovery key as a QR code\" \
         shape-rendering=\"crispEdges\"><path d=\""
    ));
    for y in 0..size {
        for x in (0..size).filter(|x| code.get_module(*x, y)) {
            let _ = write!(out, "M{} {}h1v1h-1z", x + QUIET, y + QUIET);
        }
    }
    out.push_str("\"/></svg>");
    Ok(out)
}

/// Makes a page of the lines of a kit. It is as secret as the recovery key.
///
/// # Errors
/// [`ClientError::Usage`] if the lines are no kit.
pub fn page(kit: &str) -> Result<Zeroizing<String>> {
    let field = |name: &str| {
        super::field(kit, name)
            .map(|value| escaped(value.trim()))
            .ok_or_else(|| ClientError::Usage(format!("the kit has no line \"{name}:\"")))
    };
    let (server, name, key) = (field("server")?, field("name")?, field("recovery key")?);
    let (code, style, kit) = (code(&key)?, STYLE, escaped(kit));
    Ok(Zeroizing::new(format!(
        "<!doctype html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
base-uri 'none'; form-action 'none'\">
<meta name=\"referrer\" content=\"no-referrer\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<title>Lockstep recovery kit</title>
<style>{style}</style>
</head>
<body>
<h1>Lockstep recovery kit</h1>
<p>of the account <b>{name}</b> on <b>{server}</b></p>
<p><b>If something has gone wrong: nothing is lost as long as you have this page and the server is there.</b> A lost or
broken computer or a forgotten passphrase is what this page is for. There is no hurry; no step below deletes any of your files.</p>
<div class=\"key\">{code}<div><b>The recovery key</b><span class=\"words\">{key}</span></div></div>
<h2>Getting back in</h2>
<ol>
<li>On a computer that you trust, install the program <code>lockstep</code>.</li>
<li>Make a text file, say <code>key.txt</code>, and type the recovery key into it. Capitals, spaces and line ends do not
matter. If one letter is wrong, the program says which. Scanning the square with a camera gives the same key. Typing the
lines account, recovery key and checkpoint from the end of this page, each in one line, is safer: a server that hides your
newest data
is noticed then. If you still have this page as a file, name that file.</li>
<li>Run this, and choose a new passphrase when you are asked:<br>
<code><span>lockstep recover</span> <span>--server {server}</span> <span>--name {name}</span> \
<span>--recovery-key-file key.txt</span> <span>--kit new-kit.html</span></code></li>
<li>Run <code>lockstep restore</code> with the name of an empty folder, and your files come back.</li>
<li>Print the new kit, then destroy this one and <code>key.txt</code>: nobody gets in with the old key any more.</li>
</ol>
<h2>Keeping it</h2>
<p>Print this page, put it where you keep a passport, and delete the file. Whoever has the page can read everything in the
account. Without it and without the passphrase nobody can, not even those who run the server. They do not need it and will
never ask for it, and no web page needs it either.</p>
{BEGIN}{kit_lines}{END}
</body>
</html>
",
        kit_lines = *kit,
        name = *name,
        server = *server,
        key = *key,
        code = *code,
    )))
}
