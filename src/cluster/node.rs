//! One node of a cluster: its presence, its view of the others, and the loop that does what is planned.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    convert::Infallible,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Config, Engine, Hosting, Incarnation, Links, Presence, Revision, State, Uptime,
    counts::Counting,
    engine::{Error, Sighting, Watched},
    membership::{Standing, View},
    ownership::{Action, Basis, Table, plan},
    placement::Wishes,
};
use crate::{
    model::Clock,
    store::{Epoch, Slot},
};

/// Times a node that leaves tries to remove its presence; the others would declare it dead in the end.
const FAREWELLS_MAX: usize = 3;

/// How far a node has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It waits until it may join, or joins again.
    Joining,
    /// It takes part.
    Up,
    /// It has given everything away and left.
    Left,
}

/// This node among the others. Nothing happens before [`Node::run`].
pub struct Node {
    pub(super) config: Config,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) links: Arc<dyn Links>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) spawner: Handle,
    /// One for each slot: a call waits for news of its owner.
    pub(super) news: Box<[Notify]>,
    pub(super) calls: AtomicUsize,
    pub(super) calls_bytes: AtomicUsize,
    pub(super) counts: Counting,
    pub(super) state: Mutex<Inner>,
    hosting: OnceLock<Arc<dyn Hosting>>,
    pub(super) uptime: Arc<dyn Uptime>,
    /// Until when this node may answer from memory, in microseconds of [`Uptime`].
    pub(super) lease_us: AtomicU64,
    /// Something changed that a plan may rest on.
    wake: Notify,
    /// A life may have ended, or may be left.
    turn: Notify,
    leaving: watch::Sender<bool>,
    phase: watch::Sender<Phase>,
}

/// What changes, under one lock that is never held across an await or a call to the host.
pub(super) struct Inner {
    pub(super) view: View,
    pub(super) table: Table,
    pub(super) wishes: Wishes,
    /// This life; none before the first join and between two lives.
    pub(super) life: Option<Incarnation>,
    /// The last life of this process, which has given everything up.
    past: Option<Incarnation>,
    /// What is hosted, and under which epochs.
    pub(super) held: BTreeMap<Slot, Epoch>,
    /// Slots that are being claimed or handed over.
    pub(super) busy: BTreeSet<Slot>,
    /// Slots to claim again, with the epoch that is in doubt.
    pub(super) doubts: BTreeMap<Slot, Epoch>,
    /// Slots that are being claimed again.
    pub(super) doubted: BTreeSet<Slot>,
    /// Slots whose record is to be read: somebody knows a higher epoch.
    pub(super) checks: BTreeSet<Slot>,
    /// What the host is to be told, in order.
    pub(super) orders: VecDeque<Order>,
    /// Whether somebody is telling it.
    telling: bool,
}

/// What the host is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Own(Slot, Epoch),
    Disown(Slot),
}

/// How a life ended.
enum End {
    Left,
    Dead,
}

impl Node {
    /// Prepares a node.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(
        config: Config,
        engine: Arc<dyn Engine>,
        links: Arc<dyn Links>,
        uptime: Arc<dyn Uptime>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let state = Inner {
            view: View::default(),
            table: Table::new(config.slots),
            wishes: Wishes::default(),
            life: None,
            past: None,
            held: BTreeMap::new(),
            busy: BTreeSet::new(),
            doubts: BTreeMap::new(),
            doubted: BTreeSet::new(),
            checks: BTreeSet::new(),
            orders: VecDeque::new(),
            telling: false,
        };
        Arc::new(Self {
            engine,
            links,
            clock,
            spawner: Handle::current(),
            news: (0..config.slots).map(|_| Notify::new()).collect(),
            calls: AtomicUsize::new(0),
            calls_bytes: AtomicUsize::new(0),
            counts: Counting::default(),
            state: Mutex::new(state),
            hosting: OnceLock::new(),
            uptime,
            lease_us: AtomicU64::new(0),
            wake: Notify::new(),
            turn: Notify::new(),
            leaving: watch::Sender::new(false),
            phase: watch::Sender::new(Phase::Joining),
            config,
        })
    }

    /// Takes part on behalf of a host until [`Node::leave`] has ended. To be called once.
    ///
    /// # Cancel safety
    /// Dropping the future is like a crash: the others notice after the time to live.
    pub async fn run(self: &Arc<Self>, hosting: Arc<dyn Hosting>) {
        self.hosting.get_or_init(|| hosting);
        tokio::select! {
            biased;
            never = self.follow_presence() => match never {},
            never = self.follow_owners() => match never {},
            () = self.lives() => {}
        }
    }

    /// Gives every slot away, one by one, and leaves; callers wait, none fails. Ends when the node has left.
    ///
    /// # Cancel safety
    /// Leaving goes on if the future is dropped.
    pub async fn leave(&self) {
        self.leaving.send_replace(true);
        self.wake.notify_one();
        let mut phase = self.phase.subscribe();
        phase.wait_for(|phase| *phase == Phase::Left).await.ok();
    }

    /// How far the node has come, and will.
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Whether this node may answer from memory: by its own clock, no other can have declared it dead.
    pub fn holds_lease(&self) -> bool {
        micros(self.uptime.now()) < self.lease_us.load(Ordering::Acquire)
    }

    /// A commit under this epoch has an unknown outcome, or was fenced: the slot is claimed again, or given up if
    /// another node has it.
    pub fn claim_again(&self, slot: Slot, epoch: Epoch) {
        let mut state = self.state.lock();
        let doubt = state.doubts.entry(slot).or_insert(epoch);
        *doubt = epoch.max(*doubt);
        drop(state);
        self.wake.notify_one();
    }

    /// Slots that this node hosts.
    pub fn held(&self) -> usize {
        self.state.lock().held.len()
    }

    /// Every node as its presence record has it.
    pub fn nodes(&self) -> Vec<(super::NodeId, Presence)> {
        self.state.lock().view.iter().map(|(node, seen)| (node.clone(), seen.presence.clone())).collect()
    }

    pub(super) fn host(&self) -> Option<&Arc<dyn Hosting>> {
        self.hosting.get()
    }

    /// Pauses that grow, without end.
    pub(super) fn pauses(&self, salt: u64) -> impl Iterator<Item = Duration> + use<> {
        ExponentialBuilder::new()
            .with_min_delay(self.config.retry_min)
            .with_max_delay(self.config.retry_max)
            .with_jitter()
            .with_jitter_seed(self.config.seed ^ salt)
            .without_max_times()
            .build()
    }

    /// A request to the shared store, which takes no longer than it may.
    pub(super) async fn asked<T>(&self, request: super::Soon<'_, Result<T, Error>>) -> Result<T, Error> {
        let late = |_| Err(Error::Unknown("no answer in time".into()));
        timeout(self.config.engine_timeout, request).await.unwrap_or_else(late)
    }

    /// Tells the host what it is to be told, in order, whoever of us comes first.
    pub(super) fn tell_host(&self) {
        let Some(host) = self.host() else { return };
        let mut state = self.state.lock();
        if state.telling {
            return;
        }
        state.telling = true;
        while let Some(order) = state.orders.pop_front() {
            drop(state);
            match order {
                Order::Own(slot, epoch) => host.own(slot, epoch),
                Order::Disown(slot) => host.disown(slot),
            }
            state = self.state.lock();
        }
        state.telling = false;
    }

    /// Something changed that a plan may rest on.
    pub(super) fn changed(&self) {
        self.wake.notify_one();
    }

    async fn follow_presence(&self) -> Infallible {
        let mut pauses = self.pauses(1);
        loop {
            self.state.lock().view.begin();
            match self.asked(self.engine.watch_presence()).await {
                Ok(mut shown) => {
                    // Our own renewals come by, if nothing else does.
                    while let Ok(Some(shown)) = timeout(self.config.ttl, shown.recv()).await {
                        match shown {
                            Watched::Seen(sighting) => self.sighted(sighting),
                            Watched::Current => {
                                self.state.lock().view.complete();
                                self.viewed();
                                pauses = self.pauses(1);
                            }
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "presence cannot be watched"),
            }
            self.state.lock().view.broken();
            sleep(pauses.next().unwrap_or(self.config.retry_max)).await;
        }
    }

    async fn follow_owners(&self) -> Infallible {
        let mut pauses = self.pauses(2);
        loop {
            match self.asked(self.engine.watch_owners()).await {
                Ok(mut shown) => {
                    while let Some(shown) = shown.recv().await {
                        match shown {
                            Watched::Seen((slot, owner)) => self.learned(slot, owner),
                            Watched::Current => {
                                self.state.lock().table.set_current(true);
                                self.changed();
                                pauses = self.pauses(2);
                            }
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "owners cannot be watched"),
            }
            self.state.lock().table.set_current(false);
            sleep(pauses.next().unwrap_or(self.config.retry_max)).await;
        }
    }

    pub(super) fn sighted(&self, sighting: Sighting) {
        let is_news = self.state.lock().view.see(sighting, self.uptime.now());
        if is_news {
            self.viewed();
        }
    }

    /// The view changed.
    pub(super) fn viewed(&self) {
        let mut state = self.state.lock();
        let Inner { view, wishes, .. } = &mut *state;
        if view.is_current() {
            wishes.over(view.up(), self.config.slots);
        }
        if self.is_dead(&state) {
            self.turn.notify_one();
        }
        drop(state);
        // A call may wait for the address of its owner.
        for news in &self.news {
            news.notify_waiters();
        }
        self.changed();
    }

    fn is_dead(&self, state: &Inner) -> bool {
        state.life.is_some_and(|life| state.view.standing(&self.config.node, life) == Standing::Dead)
    }

    async fn lives(self: &Arc<Self>) {
        let mut leaving = self.leaving.subscribe();
        loop {
            let joined = tokio::select! {
            biased;
                       joined = self.join() => Some(joined),
                       _ = leaving.wait_for(|leaving| *leaving) => None,
                   };
            let Some((presence, revision)) = joined else { break };
            self.phase.send_replace(Phase::Up);
            let end = tokio::select! {
            biased;
                       end = self.beat(presence, revision) => end,
                       never = self.tend() => match never {},
                   };
            self.lease_us.store(0, Ordering::Release);
            match end {
                End::Left => break,
                End::Dead => self.give_up(),
            }
        }
        self.phase.send_replace(Phase::Left);
    }

    /// Others may have everything that this life had.
    fn give_up(&self) {
        tracing::warn!(node = %self.config.node, "declared dead by another node: everything is given up, to join anew");
        let mut state = self.state.lock();
        state.past = state.life.take();
        state.doubts.clear();
        let held = std::mem::take(&mut state.held);
        state.orders.extend(held.into_keys().map(Order::Disown));
        drop(state);
        self.phase.send_replace(Phase::Joining);
        self.tell_host();
    }

    /// Waits until everything is seen, then creates this life's presence; over that of an earlier process only once it
    /// has been silent, or owned something without a presence, for so long that it may be declared dead.
    async fn join(&self) -> (Presence, Revision) {
        let node = &self.config.node;
        let silent = self.config.ttl + self.config.margin;
        let mut tried = None;
        let mut absent = None;
        let mut pauses = self.pauses(3);
        loop {
            sleep(pauses.next().unwrap_or(self.config.retry_max)).await;
            let (expected, life, found) = {
                let state = self.state.lock();
                if !state.view.is_current() || !state.table.is_current() {
                    continue;
                }
                let seen = state.view.get(node);
                let seen_life = seen.map(|seen| seen.presence.incarnation);
                let owned = || state.table.iter().filter_map(|(_, owner)| owner).filter(|owner| owner.node == *node);
                let last = owned().map(|owner| owner.incarnation).max();
                let last = last.max(seen_life).max(tried).unwrap_or_default();
                let life = Incarnation(self.clock.now().unix_ms().max(last.0 + 1));
                let found = seen.filter(|seen| Some(seen.presence.incarnation) == tried).cloned();
                let now = self.uptime.now();
                let may_live = match seen {
                    Some(seen) => seen.presence.state != State::Dead,
                    None => owned().any(|owner| !owner.released && Some(owner.incarnation) > state.past),
                };
                let silence = state.view.silence(node, now);
                let silence = silence.unwrap_or_else(|| now.saturating_sub(*absent.get_or_insert(now)));
                if seen.is_some() {
                    absent = None;
                }
                if found.is_none() && may_live && !self.config.alone && silence < silent {
                    continue;
                }
                (seen.map_or(Revision(0), |seen| seen.revision), life, found)
            };
            if let Some(found) = found
                && found.presence.state == State::Joining
            {
                // It was written, although nobody said so.
                self.state.lock().life = Some(found.presence.incarnation);
                return (found.presence, found.revision);
            }
            let presence = Presence {
                incarnation: life,
                address: self.config.address.clone(),
                http: self.config.http.clone(),
                state: State::Joining,
                load: 0,
            };
            tried = Some(life);
            match self.asked(self.engine.put_presence(node.clone(), presence.clone(), expected)).await {
                Ok(revision) => {
                    self.state.lock().life = Some(life);
                    self.sighted(Sighting { node: node.clone(), presence: Some(presence.clone()), revision });
                    return (presence, revision);
                }
                Err(error) => {
                    tracing::info!(%error, "the presence of this node could not be created yet");
                    self.look_at(node, expected).await;
                }
            }
        }
    }

    /// Keeps this life's presence until it has left or is dead.
    async fn beat(&self, mut me: Presence, mut revision: Revision) -> End {
        let node = &self.config.node;
        let mut leaving = self.leaving.subscribe();
        let mut pauses = self.pauses(4);
        let mut next = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = self.turn.notified() => {}
                _ = leaving.changed() => next = Instant::now(),
                () = sleep_until(next) => {}
            }
            let (is_dead, is_empty, held) = {
                let state = self.state.lock();
                (self.is_dead(&state), self.is_empty(&state), state.held.len())
            };
            if is_dead {
                return End::Dead;
            }
            if me.state == State::Draining && is_empty {
                for _ in 0..FAREWELLS_MAX {
                    if self.asked(self.engine.remove_presence(node.clone(), revision)).await.is_ok() {
                        break;
                    }
                }
                return End::Left;
            }
            if Instant::now() < next {
                continue;
            }
            let wanted = if *leaving.borrow_and_update() { State::Draining } else { State::Up };
            let renewed = Presence { state: wanted, load: u32::try_from(held).unwrap_or(u32::MAX), ..me.clone() };
            let sent = self.uptime.now();
            match self.asked(self.engine.put_presence(node.clone(), renewed.clone(), revision)).await {
                Ok(number) => {
                    (me, revision) = (renewed, number);
                    let until = (sent + self.config.ttl).saturating_sub(self.config.margin);
                    self.lease_us.fetch_max(micros(until), Ordering::AcqRel);
                    self.sighted(Sighting { node: node.clone(), presence: Some(me.clone()), revision });
                    next = Instant::now() + self.config.renew_every;
                    pauses = self.pauses(4);
                }
                Err(error) => {
                    tracing::warn!(%error, "the presence of this node was not renewed");
                    match self.asked(self.engine.presence(node.clone())).await {
                        // It was written, although nobody said so: the next renewal goes on from there.
                        Ok(Some((found, number)))
                            if found.incarnation == me.incarnation && found.state != State::Dead =>
                        {
                            revision = revision.max(number);
                        }
                        Ok(Some((found, number))) if number > revision => {
                            let node = node.clone();
                            self.sighted(Sighting { node, presence: Some(found), revision: number });
                        }
                        // Whoever removes a record has declared it dead before.
                        Ok(None) if error == Error::Conflict => return End::Dead,
                        Ok(_) | Err(_) => {}
                    }
                    let pause = pauses.next().unwrap_or(self.config.retry_max);
                    next = Instant::now() + pause.min(self.config.renew_every);
                }
            }
        }
    }

    /// Whether this life owns nothing, as far as anybody knows, and does nothing that could change that.
    fn is_empty(&self, state: &Inner) -> bool {
        let mine = |owner: &super::Owner| {
            !owner.released && owner.node == self.config.node && Some(owner.incarnation) == state.life
        };
        let nothing_known = state.table.is_current() && !state.table.iter().any(|(_, owner)| owner.is_some_and(mine));
        state.held.is_empty() && state.busy.is_empty() && nothing_known
    }

    /// Does what is planned, again whenever something changed.
    async fn tend(self: &Arc<Self>) -> Infallible {
        let mut deeds = JoinSet::new();
        let mut looked = None;
        loop {
            let look = looked.is_none_or(|at: Instant| at.elapsed() >= self.config.retry_max);
            if look {
                looked = Some(Instant::now());
            }
            self.begin_deeds(&mut deeds, look);
            if *self.leaving.borrow() && self.is_empty(&self.state.lock()) {
                self.turn.notify_one();
            }
            tokio::select! {
                biased;
                () = self.wake.notified() => {}
                Some(_) = deeds.join_next(), if !deeds.is_empty() => {}
                () = sleep(self.config.retry_max) => {}
            }
        }
    }

    fn begin_deeds(self: &Arc<Self>, deeds: &mut JoinSet<()>, look: bool) {
        let mut state = self.state.lock();
        let Some(life) = state.life else { return };
        for (slot, epoch) in std::mem::take(&mut state.doubts) {
            if state.doubted.insert(slot) {
                deeds.spawn(Arc::clone(self).claim_once_more(life, slot, epoch));
            } else {
                // It is another epoch than the one that is being settled; its turn comes.
                state.doubts.insert(slot, epoch);
            }
        }
        for slot in std::mem::take(&mut state.checks) {
            deeds.spawn(Arc::clone(self).check(slot));
        }
        if look {
            let after = self.config.ttl + self.config.margin;
            let owning = state.table.owning();
            for suspect in state.view.suspects(&self.config.node, &owning, self.uptime.now(), after) {
                deeds.spawn(Arc::clone(self).declare_dead(suspect));
            }
        }
        let basis = Basis {
            view: &state.view,
            table: &state.table,
            wishes: &state.wishes,
            me: &self.config.node,
            incarnation: life,
            leaving: *self.leaving.borrow(),
            held: &state.held,
            busy: &state.busy,
        };
        let actions = plan(basis, self.config.moves_max.saturating_sub(state.busy.len()));
        let mut adopted = Vec::new();
        for action in actions {
            match action {
                Action::Claim { slot, expected } => {
                    state.busy.insert(slot);
                    deeds.spawn(Arc::clone(self).claim(life, slot, expected));
                }
                Action::HandOver { slot, to } => {
                    state.busy.insert(slot);
                    deeds.spawn(Arc::clone(self).hand_over(life, slot, to));
                }
                Action::Adopt { slot, epoch } => adopted.push((slot, epoch)),
            }
        }
        drop(state);
        for (slot, epoch) in adopted {
            self.owned(life, slot, epoch);
        }
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("node", &self.config.node).finish_non_exhaustive()
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
