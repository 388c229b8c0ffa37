//! Settings: environment first, then the TOML file, then defaults that work with nothing configured.
//! A wrong setting is one line that names it.

use crate::store::postgres::PostgresUrl;
use serde::Deserialize;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Who may register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    /// Anyone.
    Open,
    /// Whoever has an invite code.
    Invite,
    /// Nobody.
    Closed,
}

/// Where everything but blob bytes is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    /// The embedded default: one file, one server.
    Sqlite(PathBuf),
    /// Any number of servers.
    Postgres(PostgresUrl),
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(url) => url.fmt(f),
        }
    }
}

/// Connections that one server holds to PostgreSQL.
const CONNECTIONS_DEFAULT: u32 = 16;
const CONNECTIONS_MAX: u32 = 1000;

/// Settings after checking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Folder of the embedded default.
    pub data: PathBuf,
    /// Database.
    pub database: Database,
    /// Most connections to PostgreSQL.
    pub database_connections: u32,
    /// Folder of blob segments.
    pub objects: PathBuf,
    /// Public origin (scheme, host, port); none: derived from the listening address.
    pub public_url: Option<String>,
    /// Who may register.
    pub registration: Registration,
}

/// A wrong setting.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {reason}")]
pub struct ConfigError {
    setting: String,
    reason: String,
}

fn wrong(setting: impl Into<String>, reason: impl Into<String>) -> ConfigError {
    ConfigError { setting: setting.into(), reason: reason.into() }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<String>,
    data: Option<String>,
    database_url: Option<String>,
    database_connections: Option<u32>,
    objects: Option<String>,
    public_url: Option<String>,
    registration: Option<String>,
}

/// Environment variables that are read, with the key of the same setting in the file.
pub const VARIABLES: &[(&str, &str)] = &[
    ("LOCKSTEP_LISTEN", "listen"),
    ("LOCKSTEP_DATA", "data"),
    ("LOCKSTEP_DATABASE_URL", "database_url"),
    ("LOCKSTEP_DATABASE_CONNECTIONS", "database_connections"),
    ("LOCKSTEP_OBJECTS", "objects"),
    ("LOCKSTEP_PUBLIC_URL", "public_url"),
    ("LOCKSTEP_REGISTRATION", "registration"),
];

impl Config {
    /// Reads the settings.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting and says what is wrong with it.
    pub fn load(file: Option<&Path>, env: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let from_file = match file {
            None => File::default(),
            Some(path) => {
                let name = path.display().to_string();
                let text = std::fs::read_to_string(path).map_err(|error| wrong(&name, error.to_string()))?;
                toml::from_str(&text).map_err(|error| wrong(&name, error.message().to_owned()))?
            }
        };
        let pick = |variable: &str, key: &str, value: Option<String>| match env(variable) {
            Some(text) if !text.is_empty() => (variable.to_owned(), Some(text)),
            _ => (key.to_owned(), value),
        };
        Self::check(
            pick("LOCKSTEP_LISTEN", "listen", from_file.listen),
            pick("LOCKSTEP_DATA", "data", from_file.data),
            pick("LOCKSTEP_DATABASE_URL", "database_url", from_file.database_url),
            pick(
                "LOCKSTEP_DATABASE_CONNECTIONS",
                "database_connections",
                from_file.database_connections.map(|count| count.to_string()),
            ),
            pick("LOCKSTEP_OBJECTS", "objects", from_file.objects),
            pick("LOCKSTEP_PUBLIC_URL", "public_url", from_file.public_url),
            pick("LOCKSTEP_REGISTRATION", "registration", from_file.registration),
        )
    }

    fn check(
        listen: Setting,
        data: Setting,
        database: Setting,
        connections: Setting,
        objects: Setting,
        public_url: Setting,
        registration: Setting,
    ) -> Result<Self, ConfigError> {
        let address: SocketAddr = match listen.1 {
            None => SocketAddr::from(([127, 0, 0, 1], 8484)),
            Some(text) => text.parse().map_err(|_| {
                wrong(listen.0, format!("\"{text}\" is no address and port, such as 127.0.0.1:8484"))
            })?,
        };
        let data_folder = data.1.map_or_else(|| PathBuf::from("lockstep-data"), PathBuf::from);
        let database = check_database(database, &data_folder)?;
        let database_connections = check_connections(connections)?;
        let objects_folder = match objects.1 {
            None => data_folder.join("objects"),
            Some(text) if text.contains("://") && !text.starts_with("file://") => {
                return Err(wrong(objects.0, "only a folder is supported by this version; S3 is not yet"));
            }
            Some(text) => PathBuf::from(text.trim_start_matches("file://")),
        };
        let public_url = match public_url.1 {
            None => None,
            Some(text) => Some(check_origin(&text).map_err(|reason| wrong(public_url.0, reason))?),
        };
        let registration = match (registration.1.as_deref(), address.ip().is_loopback()) {
            (Some("open"), _) | (None, true) => Registration::Open,
            (Some("invite"), _) => Registration::Invite,
            (Some("closed"), _) => Registration::Closed,
            (None, false) => {
                return Err(wrong(
                    registration.0,
                    "say open, invite or closed: it is open by default only on a loopback address",
                ));
            }
            (Some(other), _) => {
                return Err(wrong(registration.0, format!("\"{other}\" is none of open, invite, closed")));
            }
        };
        if public_url.is_none() && !address.ip().is_loopback() {
            return Err(wrong(
                "LOCKSTEP_PUBLIC_URL",
                "say the address that clients use, such as https://sync.example.org",
            ));
        }
        Ok(Self {
            listen: address,
            data: data_folder,
            database,
            database_connections,
            objects: objects_folder,
            public_url,
            registration,
        })
    }
}

type Setting = (String, Option<String>);

fn check_database((name, url): Setting, data_folder: &Path) -> Result<Database, ConfigError> {
    let Some(url) = url else { return Ok(Database::Sqlite(data_folder.join("lockstep.sqlite"))) };
    match url.strip_prefix("sqlite:") {
        Some(path) if !path.is_empty() => Ok(Database::Sqlite(PathBuf::from(path.trim_start_matches("//")))),
        Some(_) => Err(wrong(name, "the path is missing, as in sqlite:/var/lib/lockstep/lockstep.sqlite")),
        None if url.starts_with("postgres") => {
            Ok(Database::Postgres(PostgresUrl::parse(&url).map_err(|reason| wrong(name, reason))?))
        }
        // What stands there may be a password.
        None => Err(wrong(name, "say sqlite:PATH or postgres://user:password@host:5432/database")),
    }
}

fn check_connections((name, count): Setting) -> Result<u32, ConfigError> {
    let Some(text) = count else { return Ok(CONNECTIONS_DEFAULT) };
    match text.parse() {
        Ok(count @ 1..=CONNECTIONS_MAX) => Ok(count),
        _ => Err(wrong(name, format!("\"{text}\" is no number between 1 and {CONNECTIONS_MAX}"))),
    }
}

/// An origin is scheme, host and port, nothing else.
fn check_origin(text: &str) -> Result<String, String> {
    let trimmed = text.trim_end_matches('/');
    let rest = trimmed.strip_prefix("https://").or_else(|| trimmed.strip_prefix("http://"));
    match rest {
        Some(host) if !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']) => {
            Ok(trimmed.to_ascii_lowercase())
        }
        _ => Err(format!("\"{text}\" is no origin such as https://sync.example.org")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::load(None, |name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn nothing_configured_works_on_loopback() {
        let config = load(&[]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8484");
        assert_eq!(config.registration, Registration::Open);
        assert_eq!(config.database, Database::Sqlite("lockstep-data/lockstep.sqlite".into()));
        assert_eq!(config.database_connections, CONNECTIONS_DEFAULT);
    }

    #[test]
    fn a_wrong_setting_is_named() {
        for (pairs, name) in [
            (&[("LOCKSTEP_LISTEN", "nonsense")][..], "LOCKSTEP_LISTEN"),
            (&[("LOCKSTEP_DATABASE_URL", "mysql://x")], "LOCKSTEP_DATABASE_URL"),
            (&[("LOCKSTEP_DATABASE_URL", "sqlite:")], "LOCKSTEP_DATABASE_URL"),
            (&[("LOCKSTEP_DATABASE_URL", "postgres://x:port/y")], "LOCKSTEP_DATABASE_URL"),
            (&[("LOCKSTEP_DATABASE_CONNECTIONS", "0")], "LOCKSTEP_DATABASE_CONNECTIONS"),
            (&[("LOCKSTEP_OBJECTS", "s3://bucket")], "LOCKSTEP_OBJECTS"),
            (&[("LOCKSTEP_PUBLIC_URL", "example.org")], "LOCKSTEP_PUBLIC_URL"),
            (&[("LOCKSTEP_REGISTRATION", "maybe")], "LOCKSTEP_REGISTRATION"),
            (&[("LOCKSTEP_LISTEN", "0.0.0.0:1")], "registration"),
            (&[("LOCKSTEP_LISTEN", "0.0.0.0:1"), ("LOCKSTEP_REGISTRATION", "closed")], "LOCKSTEP_PUBLIC_URL"),
        ] {
            let error = load(pairs).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name}: ")), "{error}");
            assert!(!error.contains('\n'));
        }
    }

    #[test]
    fn the_password_of_the_database_is_shown_nowhere() {
        let url = "postgres://ada:s3cret@db.example.org/lockstep";
        let config = load(&[("LOCKSTEP_DATABASE_URL", url)]).unwrap();
        assert_eq!(config.database.to_string(), "postgres://ada@db.example.org:5432/lockstep");
        assert!(!format!("{config:?}").contains("s3cret"));
        for url in ["postgres://ada:s3cret@db.example.org:x/y", "pg://ada:s3cret@db.example.org/lockstep"] {
            let error = load(&[("LOCKSTEP_DATABASE_URL", url)]).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("s3cret"));
        }
    }

    #[test]
    fn unknown_keys_of_the_file_are_named() {
        let folder = std::env::temp_dir().join(format!("lockstep-config-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("server.toml");
        std::fs::write(&path, "listn = \"127.0.0.1:1\"\n").unwrap();
        let error = Config::load(Some(&path), |_| None).unwrap_err().to_string();
        assert!(error.contains("listn"), "{error}");
        std::fs::write(&path, "listen = \"127.0.0.1:9\"\n").unwrap();
        let env = |name: &str| (name == "LOCKSTEP_LISTEN").then(|| "127.0.0.1:7".to_owned());
        assert_eq!(Config::load(Some(&path), env).unwrap().listen.port(), 7);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
