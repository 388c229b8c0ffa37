//! Settings: environment first, then the TOML file, then defaults that work with nothing configured.
//! A wrong setting is one line that names it.

use crate::cors::CorsOrigins;
use crate::objects::settings::ObjectsAt;
use crate::proxy::TrustedProxies;
use crate::store::postgres::PostgresUrl;
use crate::tls::TlsFiles;
use lockstep_proto::size::parse_size;
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
    /// Where blob segments lie.
    pub objects: ObjectsAt,
    /// Public origin (scheme, host, port); none: derived from the listening address.
    pub public_url: Option<String>,
    /// Who may register.
    pub registration: Registration,
    /// Certificate and key; none: connections are not encrypted.
    pub tls: Option<TlsFiles>,
    /// Proxies whose word about their clients is taken.
    pub trusted_proxies: TrustedProxies,
    /// Pages of other origins that may talk to this server.
    pub cors_origins: CorsOrigins,
    /// Bytes that an account without a quota of its own may use; none is no limit.
    pub quota: Option<u64>,
}

/// A wrong setting.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {reason}")]
pub struct ConfigError {
    setting: String,
    reason: String,
}

pub(crate) fn wrong(setting: impl Into<String>, reason: impl Into<String>) -> ConfigError {
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
    s3_path_style: Option<String>,
    public_url: Option<String>,
    registration: Option<String>,
    tls_cert: Option<String>,
    tls_key: Option<String>,
    trusted_proxies: Option<String>,
    cors_origins: Option<String>,
    quota: Option<String>,
}

/// Environment variables that are read, with the key of the same setting in the file.
pub const VARIABLES: &[(&str, &str)] = &[
    ("LOCKSTEP_LISTEN", "listen"),
    ("LOCKSTEP_DATA", "data"),
    ("LOCKSTEP_DATABASE_URL", "database_url"),
    ("LOCKSTEP_DATABASE_CONNECTIONS", "database_connections"),
    ("LOCKSTEP_OBJECTS", "objects"),
    ("LOCKSTEP_S3_PATH_STYLE", "s3_path_style"),
    ("LOCKSTEP_PUBLIC_URL", "public_url"),
    ("LOCKSTEP_REGISTRATION", "registration"),
    ("LOCKSTEP_TLS_CERT", "tls_cert"),
    ("LOCKSTEP_TLS_KEY", "tls_key"),
    ("LOCKSTEP_TRUSTED_PROXIES", "trusted_proxies"),
    ("LOCKSTEP_CORS_ORIGINS", "cors_origins"),
    ("LOCKSTEP_QUOTA", "quota"),
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
        let quota = check_quota(pick("LOCKSTEP_QUOTA", "quota", from_file.quota))?;
        let mut config = Self::check(
            pick("LOCKSTEP_LISTEN", "listen", from_file.listen),
            pick("LOCKSTEP_DATA", "data", from_file.data),
            pick("LOCKSTEP_DATABASE_URL", "database_url", from_file.database_url),
            pick(
                "LOCKSTEP_DATABASE_CONNECTIONS",
                "database_connections",
                from_file.database_connections.map(|count| count.to_string()),
            ),
            pick("LOCKSTEP_PUBLIC_URL", "public_url", from_file.public_url),
            pick("LOCKSTEP_REGISTRATION", "registration", from_file.registration),
        )?;
        config.quota = quota;
        if let (setting, Some(text)) = pick("LOCKSTEP_OBJECTS", "objects", from_file.objects) {
            let path_style = pick("LOCKSTEP_S3_PATH_STYLE", "s3_path_style", from_file.s3_path_style);
            config.objects = ObjectsAt::read(&setting, &text, path_style, &env)?;
        }
        config.tls = tls_files(
            pick("LOCKSTEP_TLS_CERT", "tls_cert", from_file.tls_cert),
            pick("LOCKSTEP_TLS_KEY", "tls_key", from_file.tls_key),
        )?;
        let proxies = pick("LOCKSTEP_TRUSTED_PROXIES", "trusted_proxies", from_file.trusted_proxies);
        if let (setting, Some(text)) = proxies {
            config.trusted_proxies = TrustedProxies::parse(&text).map_err(|reason| wrong(setting, reason))?;
        }
        let origins = pick("LOCKSTEP_CORS_ORIGINS", "cors_origins", from_file.cors_origins);
        if let (setting, Some(text)) = origins {
            config.cors_origins = CorsOrigins::parse(&text).map_err(|reason| wrong(setting, reason))?;
        }
        Ok(config)
    }

    fn check(
        listen: Setting,
        data: Setting,
        database: Setting,
        connections: Setting,
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
            objects: ObjectsAt::Folder(data_folder.join("objects")),
            data: data_folder,
            database,
            database_connections,
            public_url,
            registration,
            tls: None,
            trusted_proxies: TrustedProxies::default(),
            cors_origins: CorsOrigins::default(),
            quota: None,
        })
    }
}

/// A size, or `none`.
fn check_quota(quota: Setting) -> Result<Option<u64>, ConfigError> {
    match quota.1.as_deref() {
        None | Some("none") => Ok(None),
        Some(text) => parse_size(text).map(Some).map_err(|error| wrong(quota.0, format!("{error}, or none"))),
    }
}

type Setting = (String, Option<String>);

/// Certificate and key belong together.
fn tls_files(cert: Setting, key: Setting) -> Result<Option<TlsFiles>, ConfigError> {
    match (cert, key) {
        ((_, None), (_, None)) => Ok(None),
        ((_, Some(cert)), (_, Some(key))) => Ok(Some(TlsFiles { cert: cert.into(), key: key.into() })),
        ((missing, None), (given, Some(_))) | ((given, Some(_)), (missing, None)) => {
            Err(wrong(missing, format!("{given} is set, which needs it too")))
        }
    }
}

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
pub(crate) fn check_origin(text: &str) -> Result<String, String> {
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
    fn a_quota_is_a_size_or_none() {
        for (text, quota) in
            [("none", None), ("10 GiB", Some(10 << 30)), ("500MB", Some(500_000_000)), ("0", Some(0))]
        {
            assert_eq!(load(&[("LOCKSTEP_QUOTA", text)]).unwrap().quota, quota, "{text}");
        }
        assert_eq!(load(&[]).unwrap().quota, None);
    }

    #[test]
    fn a_wrong_setting_is_named() {
        for (pairs, name) in [
            (&[("LOCKSTEP_LISTEN", "nonsense")][..], "LOCKSTEP_LISTEN"),
            (&[("LOCKSTEP_DATABASE_URL", "mysql://x")], "LOCKSTEP_DATABASE_URL"),
            (&[("LOCKSTEP_DATABASE_URL", "sqlite:")], "LOCKSTEP_DATABASE_URL"),
            (&[("LOCKSTEP_DATABASE_URL", "postgres://x:port/y")], "LOCKSTEP_DATABASE_URL"),
            (&[("LOCKSTEP_DATABASE_CONNECTIONS", "0")], "LOCKSTEP_DATABASE_CONNECTIONS"),
            (&[("LOCKSTEP_OBJECTS", "gs://bucket")], "LOCKSTEP_OBJECTS"),
            (&[("LOCKSTEP_OBJECTS", "s3://bucket"), ("AWS_REGION", "r")], "AWS_ACCESS_KEY_ID"),
            (&[("LOCKSTEP_PUBLIC_URL", "example.org")], "LOCKSTEP_PUBLIC_URL"),
            (&[("LOCKSTEP_REGISTRATION", "maybe")], "LOCKSTEP_REGISTRATION"),
            (&[("LOCKSTEP_TLS_CERT", "cert.pem")], "tls_key"),
            (&[("LOCKSTEP_TLS_KEY", "key.pem")], "tls_cert"),
            (&[("LOCKSTEP_TRUSTED_PROXIES", "10.0.0.0/40")], "LOCKSTEP_TRUSTED_PROXIES"),
            (&[("LOCKSTEP_CORS_ORIGINS", "*")], "LOCKSTEP_CORS_ORIGINS"),
            (&[("LOCKSTEP_QUOTA", "10 G")], "LOCKSTEP_QUOTA"),
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
