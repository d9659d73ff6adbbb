//! Secrets as Dapr's clients ask for them.

use std::collections::BTreeMap;

use super::{Block, Refusal, Session};
use crate::{
    capability::{components::Kind, secrets::GetSecrets},
    twin::{Failure, Rejection},
};

/// Values by the names within a secret; ours have one, the secret's own.
pub type Values = BTreeMap<String, String>;

/// A value as Dapr's API carries it.
fn text(secret: &str, value: &[u8]) -> Result<String, Refusal> {
    let binary = |_| {
        let message = format!("secret {secret} is no UTF-8, which is all that this API carries; read it natively");
        Refusal::internal("ERR_SECRET_GET", message)
    };
    std::str::from_utf8(value).map(str::to_owned).map_err(binary)
}

impl Session {
    /// Reads a secret.
    pub async fn secret_get(&self, store: &str, secret: &str) -> Result<Values, Refusal> {
        self.component(Block::SecretGet, store, Kind::Secrets).await?;
        let read = self.server.read_secret(&self.service, secret, None, self.header()).await;
        match read {
            Ok((_, value)) => Ok(Values::from([(secret.to_owned(), text(secret, &value)?)])),
            Err(Failure::Rejected(Rejection::NotFound { .. })) => {
                let missing = format!(
                    "failed getting secret with key {secret} from secret store {store}: secret {secret} not found"
                );
                Err(Refusal::internal("ERR_SECRET_GET", missing))
            }
            Err(failure) => Err(self.refused(Block::SecretGet, store)(failure)),
        }
    }

    /// Reads every secret that the service may read: there are few, and small.
    pub async fn secret_bulk(&self, store: &str) -> Result<BTreeMap<String, Values>, Refusal> {
        self.component(Block::SecretGet, store, Kind::Secrets).await?;
        let views = self.ask_for(Block::SecretGet, store, GetSecrets { secret: None }).await?;
        let mut secrets = BTreeMap::new();
        for view in views {
            match self.server.read_secret(&self.service, &view.secret, None, self.header()).await {
                Ok((_, value)) => {
                    let value = text(&view.secret, &value)?;
                    secrets.insert(view.secret.to_string(), Values::from([(view.secret.into(), value)]));
                }
                // One that is not for this service, or was deleted meanwhile, is none that it may read.
                Err(Failure::Rejected(Rejection::Denied { .. } | Rejection::NotFound { .. })) => {}
                Err(failure) => return Err(self.refused(Block::SecretGet, store)(failure)),
            }
        }
        Ok(secrets)
    }
}
