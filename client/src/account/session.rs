//! What the account uses, and its sessions.

use super::Account;
use crate::error::{ClientError, Result};
use lockstep_proto::api::auth::SESSION_DEVICE;
use lockstep_proto::api::session::Sessions;
use lockstep_proto::api::usage::Usage;

/// A session of the account, for people.
#[derive(Debug, Clone)]
pub struct SessionInfo {
    /// Its id.
    pub id: String,
    /// Id of its device; none if somebody signed in and has enrolled no device yet.
    pub device: Option<String>,
    /// Name of the device.
    pub device_name: String,
    /// When it began.
    pub created_utc: u64,
    /// When it was last used, to about an hour.
    pub used_utc: u64,
    /// Its end.
    pub expires_utc: u64,
    /// Whether it is this one.
    pub is_this: bool,
}

impl Account {
    /// What the account uses at the server.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn usage(&self) -> Result<Usage> {
        self.api.get("/v1/account/usage").await
    }

    /// The account's sessions, oldest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sessions(&self) -> Result<Vec<SessionInfo>> {
        let listed: Sessions = self.api.get("/v1/account/sessions").await?;
        let devices = self.devices();
        let sessions = listed.0.into_iter().map(|entry| {
            let device = entry.device.to_string();
            let known = devices.iter().find(|known| known.id == device).map(|known| known.name.clone());
            let is_device = entry.kind == SESSION_DEVICE;
            let name = if is_device { "(unknown device)" } else { "(signing in)" };
            SessionInfo {
                id: entry.id.to_string(),
                device: is_device.then_some(device),
                device_name: known.unwrap_or_else(|| name.to_owned()),
                created_utc: entry.created_utc,
                used_utc: entry.used_utc,
                expires_utc: entry.expires_utc,
                is_this: entry.is_this,
            }
        });
        Ok(sessions.collect())
    }

    /// Ends a session; false if it had ended already.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn revoke_session(&self, id: &str) -> Result<bool> {
        match self.api.delete(&format!("/v1/account/sessions/{id}")).await {
            Ok(()) => Ok(true),
            Err(ClientError::Refused {
                code: Some(lockstep_proto::api::problem::Code::NotFound), ..
            }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
