//! Request and answer types of `/v1`, one file a resource (PROTOCOL.md section 12.2).

pub mod account;
pub mod auth;
pub mod frames;
pub mod notice;
pub mod object;
pub mod problem;
pub mod server;
pub mod session;
pub mod usage;
pub mod vault;

/// Media type of every body but problem documents and raw objects.
pub const MEDIA_TYPE: &str = "application/cbor";

/// Declares a body with its name and limit.
macro_rules! body {
    ($(#[$meta:meta])* $name:ident ($text:literal, $max:expr) { $($(#[$fmeta:meta])* $field:ident : $ty:ty),+ $(,)? }) => {
        $crate::wire_array! {
            $(#[$meta])*
            #[derive(Debug, Clone, PartialEq, Eq)]
            pub struct $name { $($(#[$fmeta])* pub $field: $ty),+ }
        }
        impl $crate::cbor::Wire for $name {
            const NAME: &'static str = $text;
            const BYTES_MAX: usize = $max;
        }
    };
}
pub(crate) use body;

#[cfg(test)]
mod tests;
