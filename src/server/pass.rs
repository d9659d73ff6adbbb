//! A stream's right to go on: established when it began, and checked again before each item.

use std::sync::Arc;

use compact_str::CompactString;
use tokio::sync::watch;

use super::{
    Server,
    identity::Identity,
    principal::{ANONYMOUS, CACHE_AGE_MAX, ENDPOINT, revoked, trusted_until},
    problem::Problem,
};
use crate::{
    model::{Timestamp, TokenRights},
    twin::keyring::LookUp,
};

/// What a stream holds of the key it was opened with.
///
/// A revocation on this node is noticed at once; one that came another way when [`CACHE_AGE_MAX`] is over. The expiry of
/// its token is noticed when it comes.
pub struct Pass {
    server: Arc<Server>,
    /// `None` for callers that need no key.
    key_id: Option<CompactString>,
    rights: Option<Arc<TokenRights>>,
    revocations: watch::Receiver<u64>,
    checked: u64,
    until: Timestamp,
}

impl Pass {
    /// The pass of a caller that has just been let in.
    pub fn new(server: Arc<Server>, identity: &Identity) -> Self {
        let revocations = server.keeper.revocations();
        // Nobody has looked since the key was verified, which may be longer ago than the newest revocation.
        let checked = u64::MAX;
        let key_id =
            identity.principal.key_id().filter(|id| ![ANONYMOUS, ENDPOINT].contains(id)).map(CompactString::from);
        let rights = identity.rights.clone();
        Self { until: server.now().after(CACHE_AGE_MAX), server, key_id, rights, revocations, checked }
    }

    /// Says no once the key no longer counts. Reads a few numbers unless a key was revoked or the time is over.
    pub async fn check(&mut self) -> Result<(), Problem> {
        let Some(id) = &self.key_id else { return Ok(()) };
        if let Some(rights) = &self.rights {
            rights.count(self.server.now())?;
        }
        let newest = *self.revocations.borrow();
        if newest == self.checked && self.server.now() < self.until {
            return Ok(());
        }
        let entry = self.server.ask_key(id, LookUp).await?;
        let now = self.server.now();
        let entry = entry.filter(|entry| entry.counts(now)).ok_or_else(|| revoked(id))?;
        self.checked = newest;
        self.until = trusted_until(&entry, now);
        Ok(())
    }

    /// Ends when the key no longer counts, with the reason.
    ///
    /// # Cancel safety
    /// A revocation is noticed by the next call if the future is dropped.
    pub async fn over(&mut self) -> Problem {
        loop {
            let checked = self.checked;
            let expires_at = self.rights.as_ref().and_then(|rights| rights.expires_at);
            let rest = self.until.min(expires_at.unwrap_or(Timestamp::MAX)).since(self.server.now());
            if self.key_id.is_none() {
                std::future::pending::<()>().await;
            }
            tokio::select! {
                changed = self.revocations.wait_for(|newest| *newest != checked) => drop(changed),
                () = tokio::time::sleep(rest) => {}
            }
            if let Err(problem) = self.check().await {
                return problem;
            }
        }
    }
}
