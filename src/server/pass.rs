//! A stream's right to go on: established when it began, and checked again before each item.

use std::sync::Arc;

use compact_str::CompactString;
use tokio::sync::watch;

use super::{
    Server,
    principal::{ANONYMOUS, CACHE_AGE_MAX},
    problem::{Code, Problem},
};
use crate::{
    model::{Principal, Timestamp},
    twin::keyring::LookUp,
};

/// What a stream holds of the key it was opened with.
///
/// A revocation on this node is noticed at once; one that came another way when [`CACHE_AGE_MAX`] is over.
pub struct Pass {
    server: Arc<Server>,
    /// `None` for callers that need no key.
    key_id: Option<CompactString>,
    revocations: watch::Receiver<u64>,
    checked: u64,
    until: Timestamp,
}

impl Pass {
    /// The pass of a caller that has just been let in.
    pub fn new(server: Arc<Server>, principal: &Principal) -> Self {
        let revocations = server.keeper.revocations();
        // Nobody has looked since the key was verified, which may be longer ago than the newest revocation.
        let checked = u64::MAX;
        let key_id = principal.key_id().filter(|id| *id != ANONYMOUS).map(CompactString::from);
        Self { until: server.now().after(CACHE_AGE_MAX), server, key_id, revocations, checked }
    }

    /// Says no once the key no longer counts. Reads two numbers unless a key was revoked or the time is over.
    pub async fn check(&mut self) -> Result<(), Problem> {
        let Some(id) = &self.key_id else { return Ok(()) };
        let newest = *self.revocations.borrow();
        if newest == self.checked && self.server.now() < self.until {
            return Ok(());
        }
        let entry = self.server.ask_key(id, LookUp).await?;
        match entry {
            Some(entry) if entry.revoked_at.is_none() => {}
            Some(_) | None => return Err(Problem::new(Code::KeyRevoked, format!("key {id} was revoked"))),
        }
        self.checked = newest;
        self.until = self.server.now().after(CACHE_AGE_MAX);
        Ok(())
    }

    /// Ends when the key no longer counts, with the reason.
    ///
    /// # Cancel safety
    /// A revocation is noticed by the next call if the future is dropped.
    pub async fn over(&mut self) -> Problem {
        loop {
            let checked = self.checked;
            let rest = self.until.since(self.server.now());
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
