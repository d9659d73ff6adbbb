//! The way of a call to the owner of its slot, however often that changes.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use compact_str::CompactString;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout_at},
};

use super::{
    Node, NodeId, Owner, Served,
    link::{Ask, Broken, Listening, Note, Peer, Reply, ReplyTo, Whom, asked},
};
use crate::{
    model::{Outcome, Timestamp},
    store::{Epoch, Slot},
    twin::Failure,
};

/// Moves that a call follows at once; then it waits before it goes on.
const HOPS_MAX: u32 = 3;

/// Called exactly once, on any thread, with the encoded answer of the slot's owner, or why there is none.
pub type Forwarded = Box<dyn FnOnce(Result<Vec<u8>, Failure>) + Send>;

/// Where a call goes next.
enum Way {
    Here,
    To(Peer, Epoch),
    Nowhere,
}

impl Node {
    /// Takes an encoded call to the node that owns the slot, wherever it moves meanwhile; waits while nobody owns it,
    /// until the deadline. Nothing blocks. [`Failure::outcome`] says what is certain when no answer came.
    pub fn forward(self: &Arc<Self>, slot: Slot, call: Vec<u8>, deadline: Option<Timestamp>, done: Forwarded) {
        let within = deadline.map_or(self.config.call_timeout, |deadline| deadline.since(self.clock.now()));
        let Some(counted) = self.count(call.len()) else {
            return done(Err(Failure::Overloaded { what: "the way to other nodes".into() }));
        };
        if within.is_zero() {
            drop(counted);
            return done(Err(Failure::Expired));
        }
        let (call, deadline) = (Arc::new(call), Instant::now() + within);
        let Way::To(peer, epoch) = self.way(slot) else {
            return self.follow(Following { counted, slot, call, deadline, done }, None);
        };
        // Most calls end here: nothing is spawned for them, and they have no timer of their own.
        let ask = Ask { whom: Whom::Slot(slot, epoch), call: Arc::clone(&call), within };
        let heard = move |heard| match heard {
            Ok(Reply::Answer(answer)) => {
                let answer = Ok(answer);
                counted.ends(&answer);
                done(answer);
            }
            heard @ (Ok(Reply::Moved(_)) | Err(_)) => {
                let node = Arc::clone(&counted.node);
                node.follow(Following { counted, slot, call, deadline, done }, Some((epoch, heard)));
            }
        };
        self.links.ask(peer, ask, Box::new(heard));
    }

    /// Takes a call on that was not answered at once.
    fn follow(&self, following: Following, heard: Option<(Epoch, Result<Reply, Broken>)>) {
        self.spawner.spawn(async move {
            let Following { counted, slot, call, deadline, done } = following;
            let answer = counted.node.route(slot, call, deadline, heard).await;
            counted.ends(&answer);
            done(answer);
        });
    }

    /// Takes an encoded call to one node, by its name, at most once.
    pub fn call(self: &Arc<Self>, node: &str, call: Vec<u8>, within: Duration, done: Forwarded) {
        let not = |cause: &str| Failure::Lost { outcome: Outcome::NotApplied, cause: cause.into() };
        let peer = NodeId::parse(node).ok().and_then(|node| self.peer(&node));
        let Some(peer) = peer else { return done(Err(not("no such node is here"))) };
        let Some(counted) = self.count(call.len()) else {
            return done(Err(Failure::Overloaded { what: "the way to other nodes".into() }));
        };
        let ask = Ask { whom: Whom::Node, call: Arc::new(call), within };
        let heard = move |heard| {
            drop(counted);
            done(match heard {
                Ok(Reply::Answer(answer)) => Ok(answer),
                Ok(Reply::Moved(_)) => Err(not("the node takes no calls")),
                Err(Broken::NotSent(cause)) => Err(not(&cause)),
                Err(Broken::Full) => Err(Failure::Overloaded { what: "the link to another node".into() }),
                Err(Broken::Unanswered(cause)) => Err(Failure::Lost { outcome: Outcome::Unknown, cause }),
            });
        };
        self.links.ask(peer, ask, Box::new(heard));
    }

    /// Names of the other nodes that are up.
    pub fn others(&self) -> Vec<CompactString> {
        let state = self.state.lock();
        state.view.up().filter(|node| **node != self.config.node).map(|node| node.as_str().into()).collect()
    }

    /// Counts one more call; `None` if there are too many.
    fn count(self: &Arc<Self>, bytes: usize) -> Option<Counted> {
        let (calls, before) =
            (self.calls.fetch_add(1, Ordering::Relaxed), self.calls_bytes.fetch_add(bytes, Ordering::Relaxed));
        let counted = Counted { node: Arc::clone(self), bytes, begun: Instant::now() };
        (calls < self.config.calls_max && before + bytes <= self.config.calls_bytes_max).then_some(counted)
    }

    /// Goes on, with what was heard last if something was, until there is an answer.
    async fn route(
        &self,
        slot: Slot,
        call: Arc<Vec<u8>>,
        deadline: Instant,
        mut heard: Option<(Epoch, Result<Reply, Broken>)>,
    ) -> Result<Vec<u8>, Failure> {
        let Some(news) = self.news.get(usize::from(slot.0)) else {
            return Err(Failure::Lost { outcome: Outcome::NotApplied, cause: "there is no such slot".into() });
        };
        let mut pauses = self.pauses(u64::from(slot.0) << 40);
        let mut hops = 0;
        while heard.is_some() || Instant::now() < deadline {
            let mut changed = std::pin::pin!(news.notified());
            changed.as_mut().enable();
            let said = match heard.take() {
                Some(heard) => Some(heard),
                None => match self.way(slot) {
                    Way::Here => {
                        if let Some(answer) = self.ask_here(slot, &call, deadline).await? {
                            return Ok(answer);
                        }
                        None
                    }
                    Way::To(peer, epoch) => {
                        let within = deadline.saturating_duration_since(Instant::now());
                        let ask = Ask { whom: Whom::Slot(slot, epoch), call: Arc::clone(&call), within };
                        Some((epoch, asked(&*self.links, peer, ask).await))
                    }
                    Way::Nowhere => None,
                },
            };
            match said {
                Some((_, Ok(Reply::Answer(answer)))) => return Ok(answer),
                Some((epoch, Ok(Reply::Moved(owner)))) => {
                    let is_news = owner.is_some_and(|owner| owner.epoch > epoch && self.heard(slot, owner));
                    if is_news && hops < HOPS_MAX {
                        hops += 1;
                        continue;
                    }
                }
                Some((_, Err(Broken::Full))) => {
                    return Err(Failure::Overloaded { what: "the link to another node".into() });
                }
                Some((_, Err(Broken::Unanswered(cause)))) => {
                    return Err(Failure::Lost { outcome: Outcome::Unknown, cause });
                }
                Some((_, Err(Broken::NotSent(cause)))) => {
                    tracing::debug!(slot = slot.0, %cause, "a call was not sent to its owner yet");
                }
                None => {}
            }
            hops = 0;
            let pause = sleep(pauses.next().unwrap_or(self.config.retry_max));
            tokio::select! {
                biased;
                () = changed => {}
                () = pause => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
        Err(Failure::Expired)
    }

    /// Another node says who owns a slot. Answers whether the call may go on there: the record, or one that is newer, is
    /// known now.
    fn heard(&self, slot: Slot, owner: Owner) -> bool {
        let epoch = owner.epoch;
        self.learned(slot, owner);
        self.state.lock().table.get(slot).is_some_and(|known| known.epoch >= epoch && !known.released)
    }

    /// Ends when every slot has an owner that can be reached.
    pub async fn settled(&self) {
        for (slot, news) in (0..).map(Slot).zip(&self.news) {
            loop {
                let mut changed = std::pin::pin!(news.notified());
                changed.as_mut().enable();
                if !matches!(self.way(slot), Way::Nowhere) {
                    break;
                }
                changed.await;
            }
        }
    }

    fn way(&self, slot: Slot) -> Way {
        let state = self.state.lock();
        let Some(owner) = state.table.get(slot).filter(|owner| !owner.released) else { return Way::Nowhere };
        if owner.node == self.config.node {
            // What is hosted has our own record: whoever learns of another one gives the slot up under the same lock.
            return if state.held.contains_key(&slot) { Way::Here } else { Way::Nowhere };
        }
        match state.view.get(&owner.node) {
            Some(seen) if seen.is_live(owner.incarnation) => {
                Way::To(Peer { node: owner.node.clone(), address: seen.presence.address.clone() }, owner.epoch)
            }
            Some(_) | None => Way::Nowhere,
        }
    }

    /// Asks our own host; `None` if it does not own the slot.
    async fn ask_here(&self, slot: Slot, call: &Arc<Vec<u8>>, deadline: Instant) -> Result<Option<Vec<u8>>, Failure> {
        let Some(host) = self.host() else { return Ok(None) };
        let (tell, told) = oneshot::channel();
        let done = Box::new(move |served| {
            tell.send(served).ok();
        });
        host.serve(slot, Vec::clone(call), done);
        let lost = |cause: &str| Failure::Lost { outcome: Outcome::Unknown, cause: cause.into() };
        match timeout_at(deadline, told).await {
            Ok(Ok(Served::Answer(answer))) => Ok(Some(answer)),
            Ok(Ok(Served::Elsewhere)) => Ok(None),
            Ok(Err(_)) => Err(lost("the call was dropped")),
            Err(_) => Err(lost("no answer before the deadline")),
        }
    }
}

impl Listening for Node {
    fn asked(self: Arc<Self>, ask: Ask, done: ReplyTo) {
        let Ask { whom, call, .. } = ask;
        let Some(host) = self.host().cloned() else { return done(Reply::Moved(None)) };
        let (slot, epoch) = match whom {
            Whom::Slot(slot, epoch) => (slot, epoch),
            Whom::Node => {
                let served = |served| match served {
                    Served::Answer(answer) => done(Reply::Answer(answer)),
                    Served::Elsewhere => done(Reply::Moved(None)),
                };
                return host.serve_node(Arc::unwrap_or_clone(call), Box::new(served));
            }
        };
        {
            // Who asks knows more than we do.
            let mut state = self.state.lock();
            if state.table.get(slot).is_none_or(|owner| owner.epoch < epoch) {
                state.checks.insert(slot);
                self.changed();
            }
        }
        let served = move |served| match served {
            Served::Answer(answer) => {
                self.counts.served.more();
                done(Reply::Answer(answer));
            }
            Served::Elsewhere => {
                self.counts.sent_on.more();
                done(Reply::Moved(self.state.lock().table.get(slot).cloned()));
            }
        };
        host.serve(slot, Arc::unwrap_or_clone(call), Box::new(served));
    }

    fn told(&self, note: Note) {
        match note {
            Note::Released { slot, owner } => self.learned(slot, owner),
        }
    }
}

/// A call that was not answered at once.
struct Following {
    counted: Counted,
    slot: Slot,
    call: Arc<Vec<u8>>,
    deadline: Instant,
    done: Forwarded,
}

/// Counts a call that has no answer yet.
struct Counted {
    node: Arc<Node>,
    bytes: usize,
    begun: Instant,
}

impl Counted {
    /// Takes note of how a call to an owner went.
    fn ends(self, answer: &Result<Vec<u8>, Failure>) {
        let counts = &self.node.counts;
        counts.forwarded.more();
        counts.took_us.add(u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX));
        match answer {
            Err(Failure::Expired) => counts.expired.more(),
            Err(failure) if failure.outcome() == Outcome::Unknown => counts.lost.more(),
            Ok(_) | Err(_) => {}
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.node.calls.fetch_sub(1, Ordering::Relaxed);
        self.node.calls_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
