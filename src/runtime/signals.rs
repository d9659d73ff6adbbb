//! Signals: word to whoever waits, on this node or another, that a twin has something new for them. Nothing is stored,
//! and one may be lost with a node: whoever waits also looks by itself now and then.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::{Notify, futures::Notified};

use super::{
    Runtime,
    events::{Hub, Published, Want},
};
use crate::{
    model::{Key, Timestamp},
    twin::{Event, Twin},
};

/// Signals kept for other nodes; one that falls behind takes everything for signalled.
const KEPT: usize = 1024;

type Name = (&'static str, Key);

/// Who waits here, and what was signalled here.
pub(super) struct Signals {
    /// What was signalled here, for other nodes; what is waited for here, which they are asked for.
    pub(super) hub: Arc<Hub>,
    waiting: Mutex<HashMap<Name, Weak<Notify>>>,
}

impl Signals {
    pub(super) fn new() -> Self {
        Self { hub: Arc::new(Hub::new(KEPT)), waiting: Mutex::default() }
    }

    fn of(&self, name: Name) -> Signal {
        let mut waiting = self.waiting.lock();
        let known = waiting.get(&name).and_then(Weak::upgrade);
        let notify = known.unwrap_or_else(|| {
            waiting.retain(|_, notify| notify.strong_count() > 0);
            let notify = Arc::new(Notify::new());
            waiting.insert(name.clone(), Arc::downgrade(&notify));
            notify
        });
        drop(waiting);
        Signal { notify, _want: Want::new(&self.hub, Some(name)) }
    }

    /// Tells who waits here.
    pub(super) fn tell(&self, name: &Name) {
        let known = self.waiting.lock().get(name).and_then(Weak::upgrade);
        if let Some(notify) = known {
            notify.notify_waiters();
        }
    }

    /// Tells all who wait here.
    pub(super) fn tell_all(&self) {
        let known: Vec<_> = self.waiting.lock().values().filter_map(Weak::upgrade).collect();
        for notify in known {
            notify.notify_waiters();
        }
    }
}

/// Waits for signals of one twin.
pub struct Signal {
    notify: Arc<Notify>,
    _want: Want,
}

impl Signal {
    /// The next signal, counted from when this future is first polled, or [enabled](Notified::enable).
    ///
    /// # Cancel safety
    /// A signal that came meanwhile is lost.
    pub fn next(&self) -> Notified<'_> {
        self.notify.notified()
    }
}

impl Runtime {
    /// Waits for signals of one twin, on whichever node they are given.
    pub fn signals<K: Twin>(&self, key: &Key) -> Signal {
        self.inner.shared.signals.of((K::KIND, key.clone()))
    }

    /// Tells whoever waits for signals of this twin, on any node.
    pub fn signal<K: Twin>(&self, key: &Key) {
        let shared = &self.inner.shared;
        let name = (K::KIND, key.clone());
        shared.signals.tell(&name);
        if shared.cluster.is_some() {
            let (kind, key) = name;
            let event = Event { name: "".into(), data: Arc::default() };
            let at = Timestamp::default();
            shared.signals.hub.publish(0, Published { number: 0, kind, key, revision: 0, at, event });
        }
    }
}
