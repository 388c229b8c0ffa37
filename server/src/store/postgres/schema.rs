//! The list of migrations, and running them.

use super::failed;
use crate::error::StoreError;
use crate::store::Result;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection, SqlSafeStr as _};
use std::sync::Arc;
use std::time::Duration;

/// Who starts while another server migrates waits so long.
const MIGRATION: Duration = Duration::from_mins(10);

macro_rules! migration {
    ($version:literal, $name:literal) => {
        Migration::new(
            $version,
            $name.into(),
            MigrationType::Simple,
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations/postgres/", $name, ".sql"))
                .into_sql_str(),
            false,
        )
    };
}

fn migrator() -> Migrator {
    Migrator::with_migrations(vec![migration!(1, "0001_init")])
}

/// Brings the schema up to date, on a connection of its own: under PostgreSQL's advisory lock, which the
/// short limits of other connections must not cut off.
pub(super) async fn migrate(options: &PgConnectOptions) -> Result<()> {
    let work = async {
        let mut connection = PgConnection::connect_with(options).await.map_err(failed)?;
        let done = migrator().run(&mut connection).await;
        let _ = connection.close().await;
        done.map_err(|error| StoreError::Unavailable(Arc::new(error)))
    };
    match tokio::time::timeout(MIGRATION, work).await {
        Ok(done) => done,
        Err(_) => Err(StoreError::Unavailable(Arc::new(std::io::Error::other(
            "the database's schema could not be brought up to date within ten minutes",
        )))),
    }
}
