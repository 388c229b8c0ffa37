//! The address of a PostgreSQL database. Its password is shown nowhere.

use sqlx::postgres::PgConnectOptions;
use std::fmt;

/// A checked `postgres://` address.
#[derive(Clone)]
pub struct PostgresUrl {
    text: String,
    options: Box<PgConnectOptions>,
}

impl PostgresUrl {
    /// Reads an address.
    ///
    /// # Errors
    /// What is wrong with it, without repeating any of it.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "this is no address such as postgres://user:password@host:5432/database";
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(FORM.into());
        }
        let options: PgConnectOptions = text.parse().map_err(|_| FORM.to_owned())?;
        Ok(Self { text: text.to_owned(), options: Box::new(options.application_name("lockstep-server")) })
    }

    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.options
    }
}

impl PartialEq for PostgresUrl {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for PostgresUrl {}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.options;
        let database = options.get_database().unwrap_or_else(|| options.get_username());
        match options.get_socket() {
            Some(socket) => {
                write!(f, "postgres://{}@{}/{database}", options.get_username(), socket.display())
            }
            None => write!(
                f,
                "postgres://{}@{}:{}/{database}",
                options.get_username(),
                options.get_host(),
                options.get_port()
            ),
        }
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_shown_nowhere() {
        for text in [
            "postgres://ada:s3cret@db.example.org:5433/lockstep?sslmode=verify-full",
            "postgresql://ada@db.example.org:5433/lockstep?password=s3cret",
        ] {
            let url = PostgresUrl::parse(text).unwrap();
            assert_eq!(url.to_string(), "postgres://ada@db.example.org:5433/lockstep");
            assert_eq!(format!("{url:?}"), "PostgresUrl(postgres://ada@db.example.org:5433/lockstep)");
        }
        for text in ["s3cret", "mysql://ada:s3cret@host/x", "postgres://ada:s3cret@host:99999999/x"] {
            assert!(!PostgresUrl::parse(text).unwrap_err().contains("s3cret"));
        }
        let url = PostgresUrl::parse("postgres:///lockstep?host=/run/pg&user=ada&password=s3cret").unwrap();
        assert_eq!(url.to_string(), "postgres://ada@/run/pg/lockstep");
    }
}
