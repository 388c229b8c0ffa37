//! Rules. Nothing here knows HTTP or SQL.

pub mod account;
pub mod commit;
pub mod freeze;
pub mod notices;
pub mod opaque;
pub mod quota;
pub mod refused;
pub mod throttle;
