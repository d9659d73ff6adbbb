//! Walks: the indexes of the slots claimed here, read at the claim, and everything there is, for an export.

use std::{cmp::Ordering, collections::HashSet, sync::Arc};

use tokio::sync::mpsc;

use super::{
    Inner,
    log::{Log, bytes_of},
    names::{Beside, GONE, Subject},
    read::unreadable,
    wire::Outgoing,
};
use crate::store::{Entry, Epoch, Error, Item, Scan, Slot, Walked};

/// Claimed slots whose records are read together.
const SLOTS_AT_ONCE: usize = 64;

impl Inner {
    /// Reads the headers of the core records of claimed slots, many slots at a time, until every sender is gone.
    pub(super) async fn load_indexes(self: Arc<Self>, place: u16, mut claimed: mpsc::Receiver<(Slot, Epoch)>) {
        let mut wanted = Vec::new();
        while claimed.recv_many(&mut wanted, SLOTS_AT_ONCE).await > 0 {
            let mut delays = self.wire.delays();
            loop {
                self.still_loading(&mut wanted);
                if wanted.is_empty() || self.check_open().is_err() {
                    break;
                }
                if let Err(why) = self.load_index(place, &wanted).await {
                    tracing::debug!(%why, place, "records of claimed slots are read again");
                    tokio::time::sleep(delays.next().unwrap_or(self.wire.timeout())).await;
                }
            }
            wanted.clear();
            self.loads.send_modify(|loads| *loads += 1);
        }
    }

    fn still_loading(&self, claims: &mut Vec<(Slot, Epoch)>) {
        let table = self.table.lock();
        claims.retain(|(slot, epoch)| table.is_loading(*slot, *epoch));
    }

    /// Reads until every claim has been seen: what a slot held before its claim lies before it in the log, and what
    /// comes after it this node has written.
    async fn load_index(&self, place: u16, wanted: &[(Slot, Epoch)]) -> Result<(), String> {
        let filters = wanted.iter().flat_map(|(slot, _)| [self.names.own(*slot), self.names.cores(*slot)]).collect();
        let mut log = Log::open(&self.wire, &self.names.stream(place), filters, 1, true).await?;
        let mut missing: HashSet<Slot> = wanted.iter().map(|(slot, _)| *slot).collect();
        while !missing.is_empty() {
            let stored = log.next().await?.ok_or("a replica is behind")?;
            match self.names.parse(&stored.subject) {
                Some(Subject::Own(slot)) => {
                    let Some((_, ours)) = wanted.iter().find(|(of, _)| *of == slot) else { continue };
                    let shown = Epoch(stored.sequence);
                    let mut table = self.table.lock();
                    match shown.cmp(ours) {
                        Ordering::Greater => table.lost(slot, *ours),
                        Ordering::Equal => table.loaded(slot, *ours),
                        Ordering::Less => continue,
                    }
                    missing.remove(&slot);
                }
                Some(Subject::Core(address)) => {
                    let slot = super::slot_of(&address.key);
                    let Some((_, ours)) = wanted.iter().find(|(of, _)| *of == slot) else { continue };
                    if let Some(beside) = Beside::read(&stored.headers) {
                        self.table.lock().put(slot, *ours, &address, beside, stored.sequence);
                    } else {
                        tracing::error!(subject = stored.subject, "a record's headers do not read");
                    }
                }
                Some(Subject::Page(..) | Subject::Mark) | None => {}
            }
        }
        log.close().await;
        Ok(())
    }

    /// Waits until what has been claimed by now is in the indexes.
    async fn when_loaded(&self) -> Result<(), Error> {
        let mut loading = self.table.lock().loading();
        let mut loads = self.loads.subscribe();
        let all = async {
            loop {
                self.still_loading(&mut loading);
                if loading.is_empty() || loads.changed().await.is_err() {
                    return;
                }
            }
        };
        let limit = self.config.patience.saturating_add(self.config.timeout);
        tokio::time::timeout(limit, all)
            .await
            .map_err(|_| Error::Unavailable("the records of claimed slots are still being read".into()))
    }

    pub(super) async fn scan(&self, scan: Scan) -> Result<Walked, Error> {
        self.check_open()?;
        match scan {
            Scan::Wake { until, after, limit } => {
                self.when_loaded().await?;
                Ok(self.table.lock().wake(until, after, limit))
            }
            Scan::Find { kind, terms, after, limit } => {
                self.when_loaded().await?;
                Ok(self.table.lock().find(&kind, &terms, after.as_ref(), limit))
            }
            Scan::All { after, bytes } => self.everything(after, bytes).await,
        }
    }

    /// Stream by stream in the order of the log, blobs last. A mark written when a stream is begun says where it ends.
    async fn everything(&self, after: Option<Vec<u8>>, bytes: usize) -> Result<Walked, Error> {
        let unavailable = |why: String| Error::Unavailable(why.into());
        let mut at = match after {
            None => At::default(),
            Some(mark) => At::decode(&mark).ok_or_else(|| unavailable("the mark of an export does not read".into()))?,
        };
        let (mut walked, mut taken) = (Walked::default(), 0);
        while at.place <= self.names.streams() {
            let is_blobs = at.place == self.names.streams();
            let (stream, filter, mark) = if is_blobs {
                let filters = vec![self.names.blob_heads(), self.names.blob_mark()];
                (self.names.blobs(), filters, self.names.blob_mark())
            } else {
                (self.names.stream(at.place), vec![self.names.all(at.place)], self.names.mark(at.place))
            };
            if at.end == 0 {
                at.end = self.wire.store_again(Outgoing::new(mark.clone(), "")).await?;
            }
            let mut log = Log::open(&self.wire, &stream, filter, at.next, false).await.map_err(unavailable)?;
            loop {
                let stored = log.next().await.map_err(unavailable)?;
                let stored = stored.ok_or_else(|| unavailable("a replica is behind".into()))?;
                at.next = stored.sequence + 1;
                if stored.subject == mark && stored.sequence >= at.end {
                    at = At { place: at.place + 1, ..At::default() };
                    break;
                }
                if taken >= bytes.max(1) {
                    at.next = stored.sequence;
                    log.close().await;
                    walked.more = true;
                    walked.mark = Some(at.encode());
                    return Ok(walked);
                }
                let item = if is_blobs { self.blob_item(&stored.subject).await? } else { self.item(&stored)? };
                if let Some(item) = item {
                    taken += if let Item::Blob { value, .. } = &item { value.len() } else { bytes_of(&stored) };
                    walked.entries.push(Entry::Item(item));
                }
            }
            log.close().await;
        }
        Ok(walked)
    }

    fn item(&self, stored: &super::wire::Stored) -> Result<Option<Item>, Error> {
        let value = || stored.payload.to_vec();
        Ok(match self.names.parse(&stored.subject).ok_or_else(|| unreadable(&stored.subject))? {
            Subject::Own(slot) => Some(Item::Claimed { slot: slot.0, epoch: stored.sequence }),
            Subject::Core(address) => {
                let beside = Beside::read(&stored.headers).ok_or_else(|| unreadable(&stored.subject))?;
                Some(Item::Core {
                    kind: address.kind,
                    key: address.key,
                    sequence: beside.sequence,
                    core: value(),
                    wake_at: beside.wake_at,
                    terms: beside.terms.to_vec(),
                })
            }
            Subject::Page(address, name) if stored.headers.get(GONE).is_none() => {
                Some(Item::Page { kind: address.kind, key: address.key, name, value: value() })
            }
            Subject::Page(..) | Subject::Mark => None,
        })
    }

    async fn blob_item(&self, subject: &str) -> Result<Option<Item>, Error> {
        let Some((id, _)) = self.names.blob_of(subject) else { return Ok(None) };
        Ok(self.get_blob(id).await?.map(|value| Item::Blob { id, value }))
    }

    /// Puts an exported thing in place, without a claim: an import is alone with an empty cluster.
    pub(super) async fn put_item(&self, item: Item) -> Result<(), Error> {
        self.check_open()?;
        match item {
            // An epoch is the place of a claim in the log, which only grows; an older one means nothing here.
            Item::Claimed { .. } => Ok(()),
            Item::Core { kind, key, sequence, core, wake_at, terms } => {
                let address = super::Address { kind, key };
                let slot = super::slot_of(&address.key);
                let beside = Beside { sequence, wake_at, terms: terms.as_slice().into() };
                let mut message = Outgoing::new(self.names.core(slot, &address), core);
                message.headers = beside.headers();
                let at = self.put(slot, message).await?;
                let mut table = self.table.lock();
                if let Some(epoch) = table.epoch(slot) {
                    table.put(slot, epoch, &address, beside, at);
                }
                Ok(())
            }
            Item::Page { kind, key, name, value } => {
                let address = super::Address { kind, key };
                let slot = super::slot_of(&address.key);
                let message = Outgoing::new(self.names.page(slot, &address, &name), value);
                self.put(slot, message).await.map(|_| ())
            }
            Item::Blob { id, value } => self.put_blob(id, value).await,
        }
    }

    async fn put(&self, slot: Slot, message: Outgoing) -> Result<u64, Error> {
        let at = self.wire.store_again(message).await?;
        self.acknowledged(self.names.place(slot), at);
        Ok(at)
    }
}

/// Where an export reads on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct At {
    /// The stream; blobs come behind the last.
    place: u16,
    /// The next sequence.
    next: u64,
    /// The mark that ends the stream; 0 before it was written.
    end: u64,
}

impl At {
    fn encode(self) -> Vec<u8> {
        [&self.place.to_le_bytes()[..], &self.next.to_le_bytes(), &self.end.to_le_bytes()].concat()
    }

    fn decode(mark: &[u8]) -> Option<Self> {
        let (place, rest) = mark.split_first_chunk()?;
        let (next, rest) = rest.split_first_chunk()?;
        let end = rest.try_into().ok()?;
        Some(Self { place: u16::from_le_bytes(*place), next: u64::from_le_bytes(*next), end: u64::from_le_bytes(end) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back_and_another_is_refused() {
        let at = At { place: 3, next: 70_000, end: 1 << 40 };
        assert_eq!(At::decode(&at.encode()), Some(at));
        assert_eq!(At::decode(b"short"), None);
        assert_eq!(At::decode(&[0; 19]), None);
    }
}
