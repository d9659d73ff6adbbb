//! Secrets as Dapr's clients ask for them.

use std::collections::BTreeMap;

use super::{Block, Refusal, Session};
use crate::{
    capability::{components::Kind, secrets::GetSecrets},
    twin::{Failure, Rejection},
};

/// Values by the names within a secret; ours have one, the secret's own.
pub type Values = BTreeMap<String, String>;

impl Session {
    /// Reads a secret.
    pub async fn secret_get(&self, store: &str, secret: &str) -> Result<Values, Refusal> {
        self.component(Block::SecretGet, store, Kind::Secrets).await?;
        let read = self.server.read_secret(&self.service, secret, None, self.header()).await;
        match read {
            Ok((_, value)) => Ok(Values::from([(secret.to_owned(), String::from_utf8_lossy(&value).into_owned())])),
            Err(Failure::Rejected(Rejection::NotFound { .. })) => {
                let missing = format!(
                    "failed getting secret with key {secret} from secret store {store}: secret {secret} not found"
                );
                Err(Refusal::internal("ERR_SECRET_GET", missing))
            }
            Err(failure) => Err(Refusal::of(Block::SecretGet, store, &failure, |failure| self.server.problem(failure))),
        }
    }

    /// Reads every secret that the service may read.
    pub async fn secret_bulk(&self, store: &str) -> Result<BTreeMap<String, Values>, Refusal> {
        self.component(Block::SecretGet, store, Kind::Secrets).await?;
        let views = match self.call(GetSecrets { secret: None }).await {
            Ok(views) => views,
            Err(failure) => {
                return Err(Refusal::of(Block::SecretGet, store, &failure, |failure| self.server.problem(failure)));
            }
        };
        let mut secrets = BTreeMap::new();
        for view in views {
            match self.server.read_secret(&self.service, &view.secret, Some(view.version), self.header()).await {
                Ok((_, value)) => {
                    let value = String::from_utf8_lossy(&value).into_owned();
                    secrets.insert(view.secret.to_string(), Values::from([(view.secret.into(), value)]));
                }
                // One that is not for this service, or that was changed meanwhile, is left out.
                Err(Failure::Rejected(Rejection::Denied { .. } | Rejection::NotFound { .. })) => {}
                Err(failure) => {
                    return Err(Refusal::of(Block::SecretGet, store, &failure, |failure| self.server.problem(failure)));
                }
            }
        }
        Ok(secrets)
    }
}
