//! Reading a twin as it was, and who changed what: from the store alone, no activation.
//!
//! What was acknowledged is durable, so the stored record already holds it; what it holds beyond that is waited for. Chunks are immutable: a read that finds
//! one missing raced with retention, and that moment is gone.

use std::sync::Arc;

use compact_str::CompactString;
use tokio::sync::oneshot;

use super::TwinRef;
use crate::{
    model::{Consistency, Header, Key, Outcome, Principal, Timestamp, TraceParent},
    store::{self, Address, Load, Loaded},
    twin::{
        Answer, Decide, Decision, Failure, Message, Persistence, Rejection, Shape, Turn, Twin,
        journal::{self, Moment, Replayed, Retold, Tail, decode_base, decode_chunk, replay, retell},
        record::{self, Section},
    },
};

/// A twin at a moment of its past.
#[derive(Clone, Copy)]
pub struct Past<'a> {
    twin: TwinRef<'a>,
    moment: Moment,
}

/// One turn's changes, as the journal kept them.
#[derive(Clone, Debug)]
pub struct Journaled<C> {
    /// The revision after them.
    pub revision: u64,
    /// When they were decided.
    pub at: Timestamp,
    /// On whose behalf.
    pub principal: Principal,
    /// The trace they belong to.
    pub trace: Option<TraceParent>,
    /// The idempotency key of their request.
    pub request: Option<Arc<str>>,
    /// The changes, in order.
    pub changes: Vec<C>,
}

/// Events of a twin's past.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PastEvents {
    /// The events, in order.
    pub events: Vec<Retold>,
    /// They are all up to this revision.
    pub upto: u64,
    /// The twin's revision as stored.
    pub newest: u64,
}

impl<'a> TwinRef<'a> {
    /// The twin as it was at a revision or time.
    pub fn at(self, moment: Moment) -> Past<'a> {
        Past { twin: self, moment }
    }

    /// The changes after a revision, oldest first, at most `limit` turns; and whether there are more. None for a twin
    /// that does not exist.
    ///
    /// # Errors
    /// [`Rejection::Gone`] with the oldest revision kept, if that is later.
    pub async fn journal<K: Twin>(
        self,
        after: u64,
        limit: usize,
    ) -> Result<(Vec<Journaled<K::Change>>, bool), Failure> {
        let Some((address, tail)) = self.tail::<K>().await? else { return Ok((Vec::new(), false)) };
        let (mut found, mut after) = (Vec::new(), after);
        while found.len() <= limit && after < tail.revision() {
            let (_, entries) = self.entries::<K>(&address, &tail, Moment::Revision(after + 1)).await?;
            let Some(last) = entries.last().map(|(_, entry)| entry.revision) else { break };
            for (shape, entry) in entries {
                if entry.revision <= after {
                    continue;
                }
                let changes = entry.changes.iter().map(|bytes| K::Persistence::decode_change(shape, bytes));
                let changes = changes.collect::<Result<_, _>>().map_err(damaged)?;
                let journal::Entry { revision, at, principal, trace, request, .. } = entry;
                found.push(Journaled { revision, at, principal, trace, request, changes });
            }
            after = last.max(after + 1);
        }
        let more = found.len() > limit;
        found.truncate(limit);
        Ok((found, more))
    }

    /// A part of the events of the changes after a revision, oldest first: at least one change's unless there is none.
    /// None for a twin that does not exist.
    ///
    /// # Errors
    /// [`Rejection::Gone`] with the oldest revision kept, if that is later.
    pub async fn events<K: Twin>(self, after: u64) -> Result<PastEvents, Failure> {
        let Some((address, tail)) = self.tail::<K>().await? else { return Ok(PastEvents::default()) };
        let newest = tail.revision();
        if after >= newest {
            return Ok(PastEvents { events: Vec::new(), upto: newest, newest });
        }
        let (base, entries) = self.entries::<K>(&address, &tail, Moment::Revision(after + 1)).await?;
        let (events, upto) = retell(after, base, entries.into_iter(), self.key).map_err(damaged)?;
        if upto <= after {
            return Err(gone(&tail));
        }
        Ok(PastEvents { events, upto, newest })
    }

    /// The journal's newest part, from the stored record.
    async fn tail<K: Twin>(self) -> Result<Option<(Arc<Address>, Tail)>, Failure> {
        if !K::JOURNAL {
            return Err(Rejection::Unsupported { what: format!("a journal of kind '{}'", K::KIND).into() }.into());
        }
        if self.consistency == Consistency::Strict && self.runtime.inner.shared.cluster.is_some() {
            let what = "'strict' for the journal or the past of a twin: its present can be read so".into();
            return Err(Rejection::Unsupported { what }.into());
        }
        let key = Key::parse(self.key).map_err(|why| Rejection::invalid(why.to_string()))?;
        let address = Arc::new(Address { kind: K::KIND.into(), key });
        let load = Load { address: Arc::clone(&address), core: true, pages: Vec::new(), prefix: None, under: None };
        let Some(core) = self.load(load).await?.core else { return Ok(None) };
        self.barrier().await?;
        let record = record::decode(&core).map_err(damaged)?;
        let tail = record.section(Section::Journal).map_or_else(|| Ok(Tail::default()), Tail::decode);
        Ok(Some((address, tail.map_err(damaged)?)))
    }

    /// The base and the entries that lead to a moment.
    async fn entries<K: Twin>(self, address: &Arc<Address>, tail: &Tail, moment: Moment) -> Result<Group<K>, Failure> {
        let reads = tail.reads(moment)?;
        let pages: Vec<CompactString> = reads.base.iter().chain(&reads.chunks).cloned().collect();
        let loaded = if pages.is_empty() {
            Loaded::default()
        } else {
            self.load(Load { address: Arc::clone(address), core: false, pages, prefix: None, under: None }).await?
        };
        let page = |name: &CompactString| {
            let found = loaded.pages.iter().find(|(found, _)| found == name);
            found.map(|(_, bytes)| &bytes[..]).ok_or_else(|| gone(tail))
        };
        let base = match &reads.base {
            None => None,
            Some(name) => {
                let (shape, revision, bytes) = decode_base(page(name)?).map_err(damaged)?;
                Some((revision, K::Persistence::decode(shape, bytes).map_err(damaged)?))
            }
        };
        let mut entries = Vec::new();
        for name in &reads.chunks {
            entries.extend(decode_chunk(page(name)?).map_err(damaged)?);
        }
        if reads.tail {
            entries.extend(tail.entries().map_err(damaged)?);
        }
        Ok((base, entries))
    }

    /// Waits until what was read is durable: a crash could take it back, and its revision come again with other content.
    async fn barrier(self) -> Result<(), Failure> {
        let Some(store) = &self.runtime.inner.shared.store else { return Ok(()) };
        let (tell, told) = oneshot::channel();
        let done = move |ended| {
            tell.send(ended).ok();
        };
        store.barrier(Box::new(done));
        answered(told.await)
    }

    async fn load(self, load: Load) -> Result<Loaded, Failure> {
        if self.runtime.inner.shared.cluster.is_some() && self.consistency != Consistency::StaleOk {
            return self.runtime.inner.shared.load_at_owner(load).await;
        }
        let Some(store) = &self.runtime.inner.shared.store else { return Ok(Loaded::default()) };
        let (tell, told) = oneshot::channel();
        let done = move |loaded| {
            tell.send(loaded).ok();
        };
        store.load(load, Box::new(done));
        answered(told.await)
    }
}

/// What the store answered, if it did. A read changes nothing, whatever became of it.
fn answered<T>(told: Result<Result<T, store::Error>, oneshot::error::RecvError>) -> Result<T, Failure> {
    let read = told.unwrap_or_else(|_| Err(store::Error::Unavailable("the store stopped".into())));
    read.map_err(|error| Failure::Lost { outcome: Outcome::NotApplied, cause: error.to_string().into() })
}

type Group<K> = (Option<(u64, K)>, Vec<(Shape, journal::Entry)>);

impl Past<'_> {
    /// Asks the twin as it was; changes it would decide are not made.
    pub async fn ask<M: Message>(self, message: M) -> Answer<M::Reply> {
        let Replayed { state, revision, at, by } = self.state::<M::Twin>().await?;
        let key = Key::parse(self.twin.key).map_err(|why| Rejection::invalid(why.to_string()))?;
        let header = Header::default().with_principal(by);
        let Decision { reply, .. } = state.decide(&message, &Turn::new(at, &key, revision, &header))?;
        Ok(reply)
    }

    /// The twin's state as it was. What it only observed is not in it.
    pub async fn state<K: Twin>(self) -> Result<Replayed<K>, Failure> {
        let Some((address, tail)) = self.twin.tail::<K>().await? else {
            return Err(Rejection::not_found(format!("twin '{}'", self.twin.key)).into());
        };
        let (base, entries) = self.twin.entries::<K>(&address, &tail, self.moment).await?;
        replay(self.moment, base, entries.into_iter(), self.twin.key).map_err(|error| match error {
            journal::Error::Rejected(rejection) => rejection.into(),
            journal::Error::Damaged(error) => damaged(error),
        })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
fn damaged(error: record::Error) -> Failure {
    let cause = format!("the journal cannot be read: {error}").into();
    Failure::Lost { outcome: Outcome::NotApplied, cause }
}

fn gone(tail: &Tail) -> Failure {
    let oldest_revision = tail.first_revision().unwrap_or_else(|| tail.revision());
    Rejection::Gone { oldest_revision, oldest_at: Timestamp::ZERO }.into()
}
