//! Committed events for watchers: a bounded ring, and a number to wait on.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    model::{Key, Rider, Sealed, Timestamp},
    twin::Event,
};

/// One event of one twin, durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Number on this node since its start; grows by one.
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
    kept: usize,
}

struct Ring {
    events: VecDeque<Arc<Published>>,
    next: u64,
}

impl Hub {
    pub(super) fn new(kept: usize) -> Self {
        Self {
            ring: Mutex::new(Ring { events: VecDeque::new(), next: 1 }),
            newest: watch::Sender::new(0),
            kept: kept.max(1),
        }
    }

    fn publish(&self, kind: &'static str, key: &Key, revision: u64, at: Timestamp, event: Event) {
        let mut ring = self.ring.lock();
        let number = ring.next;
        ring.next += 1;
        if ring.events.len() == self.kept {
            ring.events.pop_front();
        }
        ring.events.push_back(Arc::new(Published { number, kind, key: key.clone(), revision, at, event }));
        drop(ring);
        self.newest.send_replace(number);
    }
}

/// Follows committed events, from now or from where an earlier watch ended.
pub struct Watch {
    shared: Arc<super::shared::Shared>,
    newest: watch::Receiver<u64>,
    next: u64,
    key: Option<(&'static str, Key)>,
}

/// The watcher fell behind what is kept; it must read the twins anew and go on from [`Behind::oldest`].
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
        let newest = shared.hub.newest.subscribe();
        let next = after.map_or_else(|| shared.hub.ring.lock().next, |after| after.saturating_add(1));
        Self { shared: Arc::clone(shared), newest, next, key }
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
        let ring = self.shared.hub.ring.lock();
        let oldest = ring.events.front().map_or(ring.next, |event| event.number);
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
        for event in ring.events.iter().skip(skip) {
            self.next = event.number + 1;
            if self.key.as_ref().is_none_or(|(kind, key)| event.kind == *kind && event.key == *key) {
                return Some(Ok(Arc::clone(event)));
            }
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
                self.shared.hub.publish(self.kind, &self.key, self.revision, self.at, self.event.clone());
            }
            Sealed::Lost { .. } => {}
        }
    }
}
