//! Committed events for watchers: a bounded ring, and a number to wait on.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use compact_str::CompactString;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    model::{Key, Rider, Sealed, Timestamp},
    twin::Event,
};

/// One event of one twin, durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Number on this node since its start; grows.
    pub number: u64,
    /// The twin's kind.
    pub kind: &'static str,
    /// The twin.
    pub key: Key,
    /// The twin's revision after the change.
    pub revision: u64,
    /// When it was decided.
    pub at: Timestamp,
    /// What happened.
    pub event: Event,
}

/// Keeps the newest events and tells watchers that there are more.
pub(super) struct Hub {
    ring: Mutex<Ring>,
    newest: watch::Sender<u64>,
    /// What is watched here, for those that send events from elsewhere.
    wanted: watch::Sender<Wanted>,
    kept: usize,
}

struct Ring {
    events: VecDeque<Entry>,
    next: u64,
}

/// One place of the ring.
struct Entry {
    number: u64,
    source: Source,
    /// None for a gap: events of that source may be missing.
    event: Option<Arc<Published>>,
}

/// Which runtime an event was committed by: 0 is this one.
pub(super) type Source = u64;

/// What the watches of a runtime follow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Watches of all twins.
    pub(super) all: usize,
    /// Watches of one twin.
    pub(super) twins: BTreeMap<(CompactString, Key), usize>,
}

impl Wanted {
    fn count(&mut self, key: Option<&(&'static str, Key)>) -> &mut usize {
        match key {
            None => &mut self.all,
            Some((kind, key)) => self.twins.entry(((*kind).into(), key.clone())).or_default(),
        }
    }

    /// Whether nothing is followed.
    pub(super) fn is_empty(&self) -> bool {
        self.all == 0 && self.twins.is_empty()
    }
}

/// Events of this runtime after a number, as far as they are wanted.
#[derive(Debug, Default)]
pub(super) struct Fed {
    /// The events, oldest first.
    pub(super) events: Vec<Arc<Published>>,
    /// They are all up to this number.
    pub(super) upto: u64,
    /// Whether some before them are no longer kept.
    pub(super) gap: bool,
}

impl Hub {
    pub(super) fn new(kept: usize) -> Self {
        Self {
            ring: Mutex::new(Ring { events: VecDeque::new(), next: 1 }),
            newest: watch::Sender::new(0),
            wanted: watch::Sender::default(),
            kept: kept.max(1),
        }
    }

    /// Takes a committed event.
    pub(super) fn publish(&self, source: Source, mut published: Published) {
        self.put(source, |number| {
            published.number = number;
            Some(Arc::new(published))
        });
    }

    /// Says that events of a source may be missing.
    pub(super) fn gap(&self, source: Source) {
        self.put(source, |_| None);
    }

    fn put(&self, source: Source, event: impl FnOnce(u64) -> Option<Arc<Published>>) {
        let mut ring = self.ring.lock();
        let number = ring.next;
        ring.next += 1;
        if ring.events.len() == self.kept {
            ring.events.pop_front();
        }
        ring.events.push_back(Entry { number, source, event: event(number) });
        drop(ring);
        self.newest.send_replace(number);
    }

    /// What is followed here.
    pub(super) fn wanted(&self) -> watch::Receiver<Wanted> {
        self.wanted.subscribe()
    }

    /// The number of the newest event; changes with each.
    pub(super) fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Events that were committed here after a number, at most `limit` of those that are wanted.
    pub(super) fn after(&self, after: u64, limit: usize, wanted: impl Fn(&Published) -> bool) -> Fed {
        let ring = self.ring.lock();
        let oldest = ring.events.front().map_or(ring.next, |entry| entry.number);
        let mut fed = Fed { gap: after.saturating_add(1) < oldest || after >= ring.next, ..Fed::default() };
        let after = if after >= ring.next { ring.next.saturating_sub(1) } else { after };
        fed.upto = after.max(oldest.saturating_sub(1));
        let skip = usize::try_from((after + 1).saturating_sub(oldest)).unwrap_or(usize::MAX);
        for entry in ring.events.iter().skip(skip) {
            if fed.events.len() == limit {
                break;
            }
            fed.upto = entry.number;
            if let Some(event) = entry.event.as_ref().filter(|event| entry.source == 0 && wanted(event)) {
                fed.events.push(Arc::clone(event));
            }
        }
        fed
    }
}

/// Says to other nodes that something is wanted here, for as long as it lives.
pub(super) struct Want {
    hub: Arc<Hub>,
    /// One twin, or all.
    key: Option<(&'static str, Key)>,
}

impl Want {
    pub(super) fn new(hub: &Arc<Hub>, key: Option<(&'static str, Key)>) -> Self {
        hub.wanted.send_modify(|wanted| *wanted.count(key.as_ref()) += 1);
        Self { hub: Arc::clone(hub), key }
    }
}

impl Drop for Want {
    fn drop(&mut self) {
        let key = self.key.take();
        self.hub.wanted.send_modify(|wanted| {
            let count = wanted.count(key.as_ref());
            *count -= 1;
            wanted.twins.retain(|_, count| *count > 0);
        });
    }
}

/// Follows committed events, from now or from where an earlier watch ended.
pub struct Watch {
    want: Want,
    newest: watch::Receiver<u64>,
    next: u64,
    /// Where the last event came from, and whether the reader has heard that it is another place than before: between
    /// two runtimes there is no order of one twin's events.
    source: Option<Source>,
}

/// The watcher fell behind what is kept, or a followed twin moved to another runtime; it must read the twins anew and go
/// on from [`Behind::oldest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("events up to {oldest} are no longer kept; read the present state and go on from there")]
pub struct Behind {
    /// The oldest event still kept.
    pub oldest: u64,
}

impl Watch {
    pub(super) fn new(
        shared: &Arc<super::shared::Shared>,
        after: Option<u64>,
        key: Option<(&'static str, Key)>,
    ) -> Self {
        let hub = &shared.hub;
        let newest = hub.newest.subscribe();
        let next = after.map_or_else(|| hub.ring.lock().next, |after| after.saturating_add(1));
        let source = shared.cluster.is_none().then_some(0);
        Self { want: Want::new(hub, key), newest, next, source }
    }

    /// Waits for the next event, for ever if there is none.
    ///
    /// # Errors
    /// [`Behind`] once, when events were dropped before they were read; the watch goes on after the gap.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Result<Arc<Published>, Behind> {
        loop {
            // Mark as seen before looking, so that an event published in between wakes the wait below.
            self.newest.borrow_and_update();
            match self.look() {
                Some(found) => return found,
                None => self.newest.changed().await.expect("the hub lives as long as its watch"),
            }
        }
    }

    /// The number after which the watch goes on.
    pub fn after(&self) -> u64 {
        self.next.saturating_sub(1)
    }

    fn look(&mut self) -> Option<Result<Arc<Published>, Behind>> {
        let Want { hub, key } = &self.want;
        let ring = hub.ring.lock();
        let oldest = ring.events.front().map_or(ring.next, |entry| entry.number);
        if self.next < oldest {
            self.next = oldest;
            return Some(Err(Behind { oldest }));
        }
        // A number from before a restart lies in the future of this node's count.
        if self.next > ring.next {
            self.next = ring.next;
            return Some(Err(Behind { oldest }));
        }
        let skip = usize::try_from(self.next - oldest).unwrap_or(usize::MAX);
        for Entry { number, source, event } in ring.events.iter().skip(skip) {
            let Some(event) = event else {
                self.next = number + 1;
                return Some(Err(Behind { oldest: number + 1 }));
            };
            if let Some((kind, key)) = key {
                if event.kind != *kind || event.key != *key {
                    self.next = number + 1;
                    continue;
                }
                if self.source != Some(*source) {
                    (self.source, self.next) = (Some(*source), *number);
                    return Some(Err(Behind { oldest: *number }));
                }
            }
            self.next = number + 1;
            return Some(Ok(Arc::clone(event)));
        }
        None
    }
}

/// An event that waits for its commit.
pub(super) struct EventRider {
    pub(super) shared: Arc<super::shared::Shared>,
    pub(super) kind: &'static str,
    pub(super) key: Key,
    pub(super) revision: u64,
    pub(super) at: Timestamp,
    pub(super) event: Event,
}

impl Rider for EventRider {
    fn release(&self, sealed: &Sealed) {
        match sealed {
            Sealed::Durable => {
                let Self { kind, key, revision, at, event, .. } = self;
                let (key, event) = (key.clone(), event.clone());
                self.shared.hub.publish(0, Published { number: 0, kind, key, revision: *revision, at: *at, event });
            }
            Sealed::Lost { .. } => {}
        }
    }
}
