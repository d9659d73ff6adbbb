//! The runtime's own threads: an actix `System` with its arbiters, the tick, the wake-ups, the orderly end.

use std::{any::Any, io, sync::Arc, sync::atomic::Ordering, time::Duration};

use actix::{Arbiter, ArbiterHandle, System};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior},
};

use super::{Drained, shared::Shared, wake::Due};
use crate::{
    model::{Key, Timestamp},
    store::{self, Address, Entry, Scan, Walked},
};

/// Orders that may wait.
pub(super) const ORDERS_MAX: usize = 4;
/// How often shards passivate and save.
const TICK: Duration = Duration::from_secs(1);
/// A clock that goes back by less is left to itself.
const CLOCK_STEP: Duration = Duration::from_secs(1);
/// How often a drain looks whether everything is settled.
const DRAIN_LOOK: Duration = Duration::from_millis(2);
/// Entries read from the stored wake index at a time.
const WAKE_PAGE: usize = 1024;
/// How far ahead of its time an empty rest of the index is trusted to be empty.
const WAKE_AHEAD: Duration = Duration::from_secs(3600);
/// How soon wake-ups that are due go on when as many as may be are under way.
const WAKE_PAUSE: Duration = Duration::from_millis(5);

/// What the outside asks of the system thread.
pub(super) enum Order {
    /// End in an orderly way.
    Drain {
        /// For how long to wait.
        within: Duration,
        /// How it went.
        tell: oneshot::Sender<Drained>,
    },
}

/// Starts one shard's drain on an arbiter; what it answers keeps the actor alive.
pub(super) type Starter = Box<dyn FnOnce(&ArbiterHandle) -> Kept + Send>;
/// An actor's address, of whatever kind.
pub(super) type Kept = Box<dyn Any + Send>;

pub(super) fn keep<T: Any + Send>(address: T) -> Kept {
    Box::new(address)
}

/// Starts the system thread with its arbiters and shards; returns when the shards are being drained.
pub(super) fn spawn(
    arbiters: usize,
    starters: Vec<Starter>,
    shared: Arc<Shared>,
    orders: mpsc::Receiver<Order>,
) -> io::Result<()> {
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    std::thread::Builder::new().name("twin-system".into()).spawn(move || {
        System::new().block_on(async move {
            let arbiters: Vec<Arbiter> = (0..arbiters).map(|_| Arbiter::new()).collect();
            let handles: Vec<ArbiterHandle> = arbiters.iter().map(Arbiter::handle).collect();
            let kept =
                starters.into_iter().zip(handles.iter().cycle()).map(|(start, arbiter)| start(arbiter)).collect();
            tell.send(()).ok();
            run(shared, orders, kept).await;
            for arbiter in &arbiters {
                arbiter.stop();
            }
            for arbiter in arbiters {
                arbiter.join().ok();
            }
        });
    })?;
    told.recv().map_err(|_| io::Error::other("the system thread ended at its start"))
}

/// Ticks, wakes and waits for orders, until drained or until every handle of the runtime is gone.
pub(super) async fn run(shared: Arc<Shared>, mut orders: mpsc::Receiver<Order>, kept: Vec<Kept>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut index = Index::default();
    let mut before = Timestamp::ZERO;
    let mut held_up = false;
    loop {
        let now = shared.clock.now();
        if before.since(now) > CLOCK_STEP {
            shared.clock_went_back(before.since(now));
        }
        before = now;
        let next = shared.wakes.next().map_or(TICK, |at| at.since(now));
        let next = if held_up { WAKE_PAUSE } else { next };
        tokio::select! {
            biased;
            order = orders.recv() => {
                match order {
                    Some(Order::Drain { within, tell }) => {
                        let drained = drain(&shared, within).await;
                        end(&shared).await;
                        tell.send(drained).ok();
                    }
                    None => {
                        shared.stop();
                        drain(&shared, Duration::from_secs(10)).await;
                        end(&shared).await;
                    }
                }
                break;
            }
            _ = tick.tick() => {
                shared.save_budget_kib.store(shared.config.save_kib_per_s, Ordering::Relaxed);
                for host in shared.office.hosts() {
                    host.tick(false);
                }
            }
            () = tokio::time::sleep(next) => {}
            () = shared.wakes.changed() => {}
        }
        // What is due is sent before more is read, so that a long overdue index stays where it is.
        loop {
            let more = index.read_on(&shared).await;
            held_up = wake_due(&shared);
            if held_up || !more {
                break;
            }
        }
    }
    drop(kept);
}

/// Sends what is due, as far as there is room; says whether something is left.
fn wake_due(shared: &Shared) -> bool {
    let now = shared.clock.now();
    for Due { kind, key, sequence, .. } in shared.wakes.due(now, shared.wakes.room()) {
        if let Some(host) = shared.office.host_named(&kind) {
            host.wake(&key, sequence);
        }
    }
    shared.wakes.next().is_some_and(|at| at <= now)
}

/// Where the stored wake index has been read to.
#[derive(Default)]
struct Index {
    after: Option<(Timestamp, Address)>,
}

impl Index {
    /// Reads the next page before the heap runs out of what was read, but not while something read before is due; says
    /// whether it did.
    async fn read_on(&mut self, shared: &Shared) -> bool {
        let Some(store) = &shared.store else { return false };
        if shared.wakes.begins_again() {
            self.after = None;
        }
        let now = shared.clock.now();
        let behind = shared.wakes.next().is_some_and(|at| at <= now);
        if behind || shared.wakes.horizon() > now.after(TICK * 2) {
            return false;
        }
        let until = now.after(WAKE_AHEAD);
        let before = shared.wakes.horizon();
        // From here on commits arm what lies in the part that is being read.
        shared.wakes.set_horizon(until);
        let (tell, told) = oneshot::channel();
        let scan = Scan::Wake { until, after: self.after.clone(), limit: WAKE_PAGE };
        store.scan(
            scan,
            Box::new(move |walked| {
                tell.send(walked).ok();
            }),
        );
        let walked = told.await.unwrap_or_else(|_| Err(store::Error::Unavailable("the store stopped".into())));
        match walked {
            Ok(walked) => {
                self.take(shared, walked, until);
                true
            }
            Err(error) => {
                shared.wakes.set_horizon(before);
                tracing::warn!(%error, "the wake index cannot be read; tried again with the next tick");
                false
            }
        }
    }

    fn take(&mut self, shared: &Shared, walked: Walked, until: Timestamp) {
        let mut last = None;
        for entry in walked.entries {
            let Entry::Wake { at, address, sequence } = entry else { continue };
            shared.wakes.found(at, &address.kind, &address.key, sequence);
            last = Some((at, address));
        }
        if let Some((at, address)) = last {
            if walked.more {
                shared.wakes.set_horizon(at);
            }
            self.after = Some((at, address));
        } else {
            // Nothing up to there: the next look begins behind it.
            self.after = Key::parse("\u{10FFFF}").ok().map(|key| (until, Address { kind: "\u{10FFFF}".into(), key }));
        }
    }
}

async fn drain(shared: &Shared, within: Duration) -> Drained {
    let until = Instant::now() + within;
    let mut next_tick = Instant::now();
    loop {
        let hosts = shared.office.hosts();
        if Instant::now() >= next_tick {
            for host in &hosts {
                host.tick(true);
            }
            next_tick = Instant::now() + DRAIN_LOOK * 10;
        }
        tokio::time::sleep(DRAIN_LOOK).await;
        let waiting: usize = hosts.iter().map(|host| host.pending()).sum();
        let unsettled: usize = if waiting == 0 { hosts.iter().map(|host| host.unsettled()).sum() } else { waiting };
        if unsettled == 0 || Instant::now() >= until {
            if unsettled > 0 {
                tracing::warn!(unsettled, "the drain's time is over with twins still under way");
            }
            return Drained { unsettled };
        }
    }
}

/// Closes the store, lets the drains end, breaks the circle of hosts and office.
async fn end(shared: &Shared) {
    if let Some(store) = &shared.store {
        let (tell, told) = oneshot::channel();
        store.close(Box::new(move |closed| {
            tell.send(closed).ok();
        }));
        match told.await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(error)) => tracing::error!(%error, "the store did not close well"),
        }
    }
    shared.close();
    for host in shared.office.hosts() {
        host.tick(true);
    }
    shared.office.close();
}
