//! Where segments lie, from the settings: a folder, or an S3 bucket with the usual `AWS_*` variables.
//! Keys come from the environment only, never from the settings file.

use crate::config::{ConfigError, wrong};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// Where segments lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectsAt {
    /// In a folder.
    Folder(PathBuf),
    /// In a bucket.
    S3(Box<S3Settings>),
}

/// Text that is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(String);

impl Hidden {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// A bucket and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Settings {
    /// Its name.
    pub bucket: String,
    /// What keys begin with; may be empty.
    pub prefix: String,
    /// Its region.
    pub region: String,
    /// Scheme, host and port of a server that is not AWS.
    pub endpoint: Option<String>,
    /// Whether the bucket is named in the path instead of the host.
    pub path_style: bool,
    /// Whose rights are used.
    pub access_key: Hidden,
    /// Proof of it.
    pub secret_key: Hidden,
    /// Of temporary rights.
    pub session_token: Option<Hidden>,
}

const OBJECTS: &str = "LOCKSTEP_OBJECTS";
/// What is longer is a mistake.
const CHARS_MAX: usize = 2048;

impl ObjectsAt {
    /// Reads a folder, `file://FOLDER`, or `s3://BUCKET/PREFIX`. `path_style` is the setting and its value.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting.
    pub fn read(
        setting: &str,
        text: &str,
        path_style: (String, Option<String>),
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        if let Some(place) = text.strip_prefix("s3://") {
            return Ok(Self::S3(Box::new(S3Settings::read(setting, place, path_style, env)?)));
        }
        match text.split_once("://") {
            None => Ok(Self::Folder(PathBuf::from(text))),
            Some(("file", folder)) => Ok(Self::Folder(PathBuf::from(folder))),
            Some(_) => Err(wrong(setting, "say a folder, or s3://BUCKET/PREFIX")),
        }
    }
}

impl fmt::Display for ObjectsAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "{}", folder.display()),
            Self::S3(s3) => {
                let at = s3.endpoint.as_deref().unwrap_or("AWS");
                write!(f, "s3://{}/{} (region {}, at {at})", s3.bucket, s3.prefix, s3.region)
            }
        }
    }
}

impl S3Settings {
    fn read(
        setting: &str,
        place: &str,
        path_style: (String, Option<String>),
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let prefix = prefix.trim_end_matches('/');
        if !is_bucket(bucket) {
            // Not repeated: somebody may have written keys into it.
            let form = "after s3:// comes the bucket: 3 to 63 small letters, digits, dots and hyphens";
            return Err(wrong(setting, form));
        }
        if !prefix.is_empty() && !prefix.split('/').all(is_word) {
            return Err(wrong(
                setting,
                "a prefix is words of letters, digits, \".\", \"_\", \"-\" between \"/\"",
            ));
        }
        let get = |name: &str| env(name).filter(|text| !text.is_empty());
        let first =
            |names: [&'static str; 2]| names.into_iter().find_map(|name| get(name).map(|text| (name, text)));
        let plain_is_allowed = get("AWS_ALLOW_HTTP").is_some_and(|text| is_true(&text) == Some(true));
        let endpoint = match first(["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]) {
            None => None,
            Some((name, text)) => {
                Some(check_endpoint(&text, plain_is_allowed).map_err(|reason| wrong(name, reason))?)
            }
        };
        let region = match (first(["AWS_REGION", "AWS_DEFAULT_REGION"]), &endpoint) {
            (Some((_, region)), _) if is_word(&region) => region,
            (Some((name, region)), _) => return Err(wrong(name, format!("\"{region}\" is no region"))),
            (None, Some(_)) => "us-east-1".to_owned(),
            (None, None) => {
                return Err(wrong("AWS_REGION", "say the region of the bucket, such as eu-central-1"));
            }
        };
        let key = |name: &'static str| match get(name) {
            Some(text) if text.len() <= CHARS_MAX * 4 && text.chars().all(|c| c.is_ascii_graphic()) => {
                Ok(Hidden(text))
            }
            Some(_) => Err(wrong(name, "it has a space or another character that no key has")),
            None => Err(wrong(name, format!("{OBJECTS} names an S3 bucket, which needs it"))),
        };
        let path_style = match path_style {
            // A dot in the name breaks the certificate of a name in the host.
            (_, None) => endpoint.is_some() || bucket.contains('.'),
            (name, Some(text)) => {
                is_true(&text).ok_or_else(|| wrong(name, format!("\"{text}\" is neither true nor false")))?
            }
        };
        Ok(Self {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            region,
            endpoint,
            path_style,
            access_key: key("AWS_ACCESS_KEY_ID")?,
            secret_key: key("AWS_SECRET_ACCESS_KEY")?,
            session_token: get("AWS_SESSION_TOKEN").map(|_| key("AWS_SESSION_TOKEN")).transpose()?,
        })
    }

    /// Whether requests are not encrypted on their way.
    pub(super) fn is_plain(&self) -> bool {
        self.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"))
    }

    /// The endpoint with the bucket in the host, unless it is named in the path.
    pub(super) fn endpoint_for_requests(&self) -> Option<String> {
        let endpoint = self.endpoint.as_deref()?;
        match endpoint.split_once("://") {
            Some((scheme, host)) if !self.path_style => Some(format!("{scheme}://{}.{host}", self.bucket)),
            _ => Some(endpoint.to_owned()),
        }
    }
}

fn is_true(text: &str) -> Option<bool> {
    match text {
        "true" | "1" | "yes" => Some(true),
        "false" | "0" | "no" => Some(false),
        _ => None,
    }
}

/// A bucket's name: 3 to 63 small letters, digits, dots and hyphens.
fn is_bucket(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (3..=63).contains(&text.len())
        && text.starts_with(allowed)
        && text.ends_with(allowed)
        && text.chars().all(|c| allowed(c) || c == '.' || c == '-')
}

fn is_word(text: &str) -> bool {
    (1..=256).contains(&text.len())
        && !text.starts_with('.')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c))
}

/// An endpoint is scheme, host and port; without encryption only on this machine, or when it is allowed.
fn check_endpoint(text: &str, plain_is_allowed: bool) -> Result<String, String> {
    // Not repeated: somebody may have written keys into it.
    let form = "it is no scheme, host and port, such as https://s3.example.org";
    let origin = crate::config::check_origin(text).map_err(|_| form.to_owned())?;
    let Some(host) = origin.strip_prefix("http://") else { return Ok(origin) };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => host.split(':').next(),
    };
    let name = name.unwrap_or_default();
    let is_here = name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    if is_here || plain_is_allowed {
        Ok(origin)
    } else {
        Err("use https, or set AWS_ALLOW_HTTP=true if the way to this endpoint is safe".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "GK1"), ("AWS_SECRET_ACCESS_KEY", "s3cr3t")];

    fn read(text: &str, path_style: Option<&str>, pairs: &[(&str, &str)]) -> Result<S3Settings, String> {
        let pairs = [pairs, &KEYS].concat();
        let env =
            |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let path_style = ("LOCKSTEP_S3_PATH_STYLE".to_owned(), path_style.map(str::to_owned));
        match ObjectsAt::read(OBJECTS, text, path_style, &env).map_err(|error| error.to_string())? {
            ObjectsAt::S3(settings) => Ok(*settings),
            ObjectsAt::Folder(folder) => Err(folder.display().to_string()),
        }
    }

    #[test]
    fn a_bucket_of_aws_and_one_of_ones_own() {
        let aws = read("s3://my-bucket/a/b/", None, &[("AWS_REGION", "eu-central-1")]).unwrap();
        assert_eq!((aws.bucket.as_str(), aws.prefix.as_str()), ("my-bucket", "a/b"));
        assert!(!aws.path_style && aws.endpoint.is_none() && !aws.is_plain());
        let dotted = read("s3://my.bucket", None, &[("AWS_DEFAULT_REGION", "eu-central-1")]).unwrap();
        assert!(dotted.path_style && dotted.prefix.is_empty());
        let endpoint = ("AWS_ENDPOINT_URL", "https://s3.example.org/");
        let own = read("s3://bucket", None, &[endpoint]).unwrap();
        assert_eq!(own.endpoint_for_requests().as_deref(), Some("https://s3.example.org"));
        assert_eq!(own.region, "us-east-1");
        let hosted = read("s3://bucket", Some("false"), &[endpoint]).unwrap();
        assert_eq!(hosted.endpoint_for_requests().as_deref(), Some("https://bucket.s3.example.org"));
        let both = [endpoint, ("AWS_ENDPOINT_URL_S3", "http://[::1]:3900")];
        let specific = read("s3://bucket", None, &both).unwrap();
        assert_eq!(specific.endpoint.as_deref(), Some("http://[::1]:3900"), "the one of S3 goes first");
    }

    #[test]
    fn a_wrong_setting_is_named() {
        let region = ("AWS_REGION", "eu-central-1");
        for (text, style, pairs, name) in [
            ("s3://", None, &[region][..], OBJECTS),
            ("s3://Upper", None, &[region], OBJECTS),
            ("s3://GK1:s3cr3t@bucket/x", None, &[region], OBJECTS),
            ("s3://bucket/../x", None, &[region], OBJECTS),
            ("s3://bucket/a//b", None, &[region], OBJECTS),
            ("gs://bucket", None, &[region], OBJECTS),
            ("s3://bucket", None, &[], "AWS_REGION"),
            ("s3://bucket", None, &[("AWS_REGION", "eu central")], "AWS_REGION"),
            ("s3://bucket", Some("perhaps"), &[region], "LOCKSTEP_S3_PATH_STYLE"),
            ("s3://bucket", None, &[("AWS_ENDPOINT_URL", "http://10.0.0.1:9000")], "AWS_ENDPOINT_URL"),
            (
                "s3://bucket",
                None,
                &[("AWS_ENDPOINT_URL", "http://127.0.0.1.example.org")],
                "AWS_ENDPOINT_URL",
            ),
            ("s3://bucket", None, &[("AWS_ENDPOINT_URL_S3", "example.org")], "AWS_ENDPOINT_URL_S3"),
            ("s3://bucket", None, &[("AWS_ENDPOINT_URL", "https://GK1:s3cr3t@a.org")], "AWS_ENDPOINT_URL"),
            ("s3://bucket", None, &[region, ("AWS_SECRET_ACCESS_KEY", "a b")], "AWS_SECRET_ACCESS_KEY"),
            ("s3://bucket", None, &[region, ("AWS_ACCESS_KEY_ID", "")], "AWS_ACCESS_KEY_ID"),
        ] {
            let error = read(text, style, pairs).unwrap_err();
            assert!(error.starts_with(&format!("{name}: ")), "{text}: {error}");
            assert!(!error.contains('\n') && !error.contains("s3cr3t"), "{error}");
        }
        let allowed = [("AWS_ENDPOINT_URL", "http://10.0.0.1:9000"), ("AWS_ALLOW_HTTP", "true")];
        assert!(read("s3://bucket", None, &allowed).unwrap().is_plain());
    }

    #[test]
    fn keys_are_shown_nowhere() {
        let pairs = [("AWS_REGION", "r"), ("AWS_SESSION_TOKEN", "t0k3n")];
        let settings = read("s3://bucket", None, &pairs).unwrap();
        assert_eq!(settings.session_token, Some(Hidden::new("t0k3n")));
        for shown in [format!("{settings:?}"), ObjectsAt::S3(Box::new(settings)).to_string()] {
            assert!(
                !shown.contains("s3cr3t") && !shown.contains("t0k3n") && !shown.contains("GK1"),
                "{shown}"
            );
        }
    }
}
