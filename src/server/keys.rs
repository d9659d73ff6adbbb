//! API keys: made, revoked, put in the place of one another. Each has a twin; its token is made here and kept nowhere.

use std::time::Duration;

use super::{
    Server,
    problem::{Code, Problem},
};
use crate::{
    model::{Header, Key, ServiceId, Timestamp, rights::Attenuation},
    twin::{
        Message, Wire,
        keyring::{Covers, Entry, Keyring, LookUp, MintKey, RevokeKey},
    },
};

/// Keys asked for at once when those of a service are revoked.
const PAGE: usize = 200;

/// A key that was just made.
pub struct Fresh {
    /// Public id.
    pub id: String,
    /// The token; the only copy.
    pub key: String,
}

impl Server {
    /// Makes a key. The answer holds the only copy of it.
    pub async fn mint(&self, covers: Covers, label: &str) -> Result<(Fresh, Entry), Problem> {
        let id = format!("{:016x}", rand::random::<u64>());
        let entry = self.ask_key(&id, MintKey { covers, label: label.into() }).await?;
        let token = self.keeper.root().mint(&id, &entry.covers, entry.created_at, &Attenuation::default());
        let key = token.map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
        Ok((Fresh { id, key }, entry))
    }

    /// Revokes a key, on this node at once.
    pub async fn revoke(&self, id: &str) -> Result<Entry, Problem> {
        self.end(id, Duration::ZERO).await
    }

    /// Makes a key that takes the place of another one, which counts on for `overlap`. Answers with both.
    pub async fn rotate(&self, id: &str, overlap: Duration) -> Result<(Fresh, Entry, Entry), Problem> {
        let old = self.ask_key(id, LookUp).await?;
        let old = old.ok_or_else(|| Problem::new(Code::NotFound, "key does not exist"))?;
        if !old.counts(self.now()) {
            return Err(Problem::new(Code::Conflict, format!("key {id} counts no more; make a new one")));
        }
        // Made first: if what follows fails, there is a key too many and not one too few.
        let (fresh, entry) = self.mint(old.covers, &old.label).await?;
        let old = self.end(id, overlap).await?;
        Ok((fresh, entry, old))
    }

    /// Revokes every key of a service that was made before a time. Answers with those that counted until now.
    pub async fn revoke_issued_before(
        &self,
        service: &ServiceId,
        before: Timestamp,
    ) -> Result<Vec<(Key, Entry)>, Problem> {
        let covers = Covers::Service { service: service.clone() };
        let (mut revoked, mut after) = (Vec::new(), None);
        loop {
            let terms = vec![format!("service={service}").into()];
            let (found, more) = self.find::<Keyring>(terms, after, PAGE).await?;
            after = found.last().map(|last| last.key.clone());
            for found in found {
                // A service whose name ends in * finds others, too.
                let is_meant =
                    |entry: &Entry| entry.covers == covers && entry.created_at < before && entry.counts(self.now());
                if self.ask_key(&found.key, LookUp).await?.as_ref().is_some_and(is_meant) {
                    let entry = self.revoke(&found.key).await?;
                    revoked.push((found.key, entry));
                }
            }
            if !more {
                return Ok(revoked);
            }
        }
    }

    async fn end(&self, id: &str, overlap: Duration) -> Result<Entry, Problem> {
        let entry = self.ask_key(id, RevokeKey { overlap }).await?;
        self.keeper.forget(id);
        Ok(entry)
    }

    pub(super) async fn ask_key<M: Wire + Message<Twin = Keyring>>(
        &self,
        id: &str,
        message: M,
    ) -> Result<M::Reply, Problem> {
        let header = Header::default().with_deadline(self.now().after(Duration::from_secs(self.config.deadline_s)));
        let key = Key::parse(id)?;
        self.runtime.twin(&key).ask(message).header(header).await.map_err(|failure| self.problem(&failure))
    }
}
