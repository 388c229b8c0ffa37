//! The list of migrations.

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

macro_rules! migration {
    ($version:literal, $name:literal) => {
        Migration::new(
            $version,
            $name.into(),
            MigrationType::Simple,
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations/sqlite/", $name, ".sql"))
                .into_sql_str(),
            false,
        )
    };
}

pub(super) fn migrator() -> Migrator {
    Migrator::with_migrations(vec![
        migration!(1, "0001_init"),
        migration!(2, "0002_usage"),
        migration!(3, "0003_devices"),
    ])
}
