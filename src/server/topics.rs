//! Topics on their way in and out: the right to them is asked of the service's twin, the messages of the topic's.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ahash::HashMap;
use compact_str::CompactString;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
};

use super::{
    Server,
    identity::Identity,
    pass::Pass,
    problem::{Code, Problem},
};
use crate::{
    bus::{
        Append, Lease, Outcome, Read, Renew, Seek, Settle, Settled, Stored, Topic,
        topic::{READ_MAX, Start, Wish},
    },
    capability::topics::{Permit, Topics, topic_key},
    model::{Header, Key, ServiceId},
    twin::{
        Failure, Message, Rejection, Wire,
        part::{Part as _, Right},
        service::access::CheckAccess,
    },
};

/// Most messages that one subscription has at once.
pub const OUTSTANDING_MAX: usize = 256;
/// How long a message stays with a subscription that is not heard of any more.
const LEASE: Duration = Duration::from_secs(60);
/// How often a subscription says that it still has its messages.
const RENEW_EVERY: Duration = Duration::from_secs(20);
/// How long a subscription rests after a problem.
const PROBLEM_PAUSE: Duration = Duration::from_secs(1);
/// How often a subscription looks by itself, should nobody tell it.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The least time between two looks that nothing new was the reason of.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl Server {
    async fn ask_topic<M: Wire + Message<Twin = Topic>>(
        &self,
        topic: &Key,
        message: M,
        header: Header,
    ) -> Result<M::Reply, Failure> {
        self.runtime.twin(topic).ask(message).header(header).await
    }

    async fn permit_topic(
        &self,
        service: &ServiceId,
        name: &CompactString,
        wish: Wish,
        header: Header,
    ) -> Result<(), Failure> {
        self.call(service, Permit { name: name.clone(), wish }, header, None).await
    }

    /// Whether a service that was permitted still is; asked for each message, and so not counted as a request.
    async fn still_permit_topic(
        &self,
        service: &ServiceId,
        name: &CompactString,
        wish: Wish,
        header: Header,
    ) -> Result<(), Failure> {
        let right = Right { capability: Topics::NAME.into(), name: name.clone(), operation: wish.operation().into() };
        let checked = self.ask(service, CheckAccess { rights: vec![right] }, header.clone(), None).await;
        match checked.map(|explained| explained.iter().all(|each| each.allowed)) {
            Ok(true) => Ok(()),
            // Whoever is refused now is refused in full, with an entry in the journal.
            Ok(false) | Err(_) => self.permit_topic(service, name, wish, header).await,
        }
    }

    /// Publishes messages, in this order; answers with the number of each once they are durable.
    pub async fn publish(
        &self,
        service: &ServiceId,
        component: &str,
        topic: &str,
        messages: Vec<Stored>,
        header: Header,
    ) -> Result<Vec<u64>, Failure> {
        let name = compact_str::format_compact!("{component}/{topic}");
        self.permit_topic(service, &name, Wish::Publish, header.clone()).await?;
        let key = topic_key(service.namespace(), component, topic)?;
        let numbers = self.ask_topic(&key, Append { messages }, header).await?;
        self.runtime.signal::<Topic>(&key);
        Ok(numbers)
    }

    /// Has the subscriptions of a service begin anew, and answers with the number of the message they begin with.
    pub async fn replay(
        &self,
        service: &ServiceId,
        component: &str,
        topic: &str,
        from: Start,
        header: Header,
    ) -> Result<u64, Failure> {
        let name = compact_str::format_compact!("{component}/{topic}");
        self.permit_topic(service, &name, Wish::Subscribe, header.clone()).await?;
        let key = topic_key(service.namespace(), component, topic)?;
        let next = self.ask_topic(&key, Seek { group: service.as_str().into(), from }, header).await?;
        self.runtime.signal::<Topic>(&key);
        Ok(next)
    }

    /// Begins to take a topic's messages for a service: what comes from now on, shared with its other subscriptions.
    /// At most `outstanding_max` messages, and no more than 256, are handed over and not settled at once.
    pub async fn subscribe(
        self: &Arc<Self>,
        service: &ServiceId,
        component: &str,
        topic: &str,
        identity: &Identity,
        header: Header,
        outstanding_max: usize,
    ) -> Result<Subscription, Failure> {
        let settler = Settler {
            server: Arc::clone(self),
            topic: topic_key(service.namespace(), component, topic)?,
            group: service.as_str().into(),
            header,
            outstanding: Arc::new(Outstanding::new(outstanding_max.clamp(1, OUTSTANDING_MAX))),
        };
        let name = compact_str::format_compact!("{component}/{topic}");
        self.permit_topic(service, &name, Wish::Subscribe, settler.header()).await?;
        let pass = || Pass::new(Arc::clone(self), identity);
        let mut pump = Pump { pass: pass(), due: None, settler: settler.clone() };
        // The group is there before anybody hears that it is.
        pump.lease(0).await?;
        // One more: whoever takes nothing still hears of a problem.
        let (found, messages) = mpsc::channel(OUTSTANDING_MAX + 1);
        let pump = tokio::spawn(pump.run(found));
        Ok(Subscription { messages, next: None, pass: pass(), service: service.clone(), name, settler, pump })
    }
}

/// A message handed to a subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its number in the topic.
    pub number: u64,
    /// How often it was handed out by now.
    pub attempts: u32,
    /// The message.
    pub message: Stored,
}

/// Takes messages of a topic, one after the other. What was not settled when it is dropped comes again at once.
pub struct Subscription {
    messages: mpsc::Receiver<Result<Delivery, Problem>>,
    /// Found, and not handed over yet.
    next: Option<Delivery>,
    pass: Pass,
    service: ServiceId,
    name: CompactString,
    settler: Settler,
    pump: JoinHandle<()>,
}

impl Subscription {
    /// Waits for the next message. Whoever may not subscribe any more hears it in place of the next one.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Result<Delivery, Problem> {
        if self.next.is_none() {
            let over = || Err(Problem::new(Code::Stopping, "the subscription is over"));
            self.next = Some(self.messages.recv().await.unwrap_or_else(over)?);
        }
        self.pass.check().await?;
        let server = &self.settler.server;
        while let Err(failure) =
            server.still_permit_topic(&self.service, &self.name, Wish::Subscribe, self.settler.header()).await
        {
            if !is_passing(&failure) {
                return Err(server.problem(&failure));
            }
            tokio::time::sleep(PROBLEM_PAUSE).await;
        }
        Ok(self.next.take().expect("it was found above"))
    }

    /// Says what became of a message that was handed over. It is kept with what else there is to say by then; a message
    /// for which it could not be kept comes again.
    pub fn settle(&self, number: u64, outcome: Outcome) {
        self.settler.outstanding.settle(number, outcome);
    }

    /// Ends it, and waits until what became of its messages is kept.
    pub async fn close(self) {
        let Self { messages, pump, .. } = self;
        drop(messages);
        if let Err(error) = pump.await {
            tracing::error!(%error, "a subscription ended with a bug");
        }
    }

    /// Reads a message again that was handed over.
    pub async fn read(&self, number: u64) -> Result<Option<Stored>, Failure> {
        let Settler { server, topic, .. } = &self.settler;
        let read = server.ask_topic(topic, Read { from: number, limit: 1 }, self.settler.header()).await?;
        Ok(read.into_iter().find(|(found, _)| *found == number).map(|(_, message)| message))
    }
}

/// The messages that one subscription has at present, and how many it may have.
#[derive(Debug)]
struct Outstanding {
    max: usize,
    held: Mutex<Held>,
    /// Tells that there is something to settle, and so room again.
    freed: Notify,
}

#[derive(Debug, Default)]
struct Held {
    /// Handed over, and for the how many-th time.
    attempts: BTreeMap<u64, u32>,
    /// What became of those that were; the topic does not know yet.
    settled: Vec<Settled>,
}

impl Outstanding {
    fn new(max: usize) -> Self {
        Self { max, held: Mutex::default(), freed: Notify::new() }
    }

    fn room(&self) -> usize {
        self.max.saturating_sub(self.held.lock().attempts.len())
    }

    fn add(&self, number: u64, attempts: u32) {
        self.held.lock().attempts.insert(number, attempts);
    }

    fn settle(&self, number: u64, outcome: Outcome) {
        let mut held = self.held.lock();
        if let Some(attempts) = held.attempts.remove(&number) {
            held.settled.push(Settled { number, attempts, outcome });
            self.freed.notify_waiters();
        }
    }

    fn take_settled(&self) -> Vec<Settled> {
        std::mem::take(&mut self.held.lock().settled)
    }

    /// Gives back what could not be told.
    fn put_back(&self, settled: Vec<Settled>) {
        self.held.lock().settled.extend(settled);
    }

    fn all(&self) -> Vec<(u64, u32)> {
        self.held.lock().attempts.iter().map(|(number, attempts)| (*number, *attempts)).collect()
    }

    /// What is to be said in the end: of what was not settled, that it comes again at once.
    fn last_words(&self) -> Vec<Settled> {
        let Held { attempts, settled } = std::mem::take(&mut *self.held.lock());
        settled.into_iter().chain(attempts.into_iter().map(settled_as(Outcome::Back))).collect()
    }
}

/// Speaks for one group of a topic.
#[derive(Clone)]
struct Settler {
    server: Arc<Server>,
    topic: Key,
    group: CompactString,
    header: Header,
    outstanding: Arc<Outstanding>,
}

impl Settler {
    fn header(&self) -> Header {
        let within = Duration::from_secs(self.server.config.deadline_s);
        self.header.clone().with_deadline(self.server.now().after(within))
    }

    /// Says what became of messages, apart from taking others.
    async fn tell(&self, outcomes: Vec<Settled>) {
        if outcomes.is_empty() {
            return;
        }
        let is_wanted_again = is_wanted_again(&outcomes);
        let settle = Settle { group: self.group.clone(), outcomes };
        match self.server.ask_topic(&self.topic, settle, self.header()).await {
            Ok(()) if is_wanted_again => self.server.runtime.signal::<Topic>(&self.topic),
            Ok(()) => {}
            Err(error) => {
                let topic = &self.topic;
                tracing::debug!(%error, %topic, "what became of messages was not kept; they come again");
            }
        }
    }
}

/// Leases and reads messages for one subscription, for as long as somebody takes them.
struct Pump {
    settler: Settler,
    pass: Pass,
    /// When something comes again.
    due: Option<tokio::time::Instant>,
}

impl Pump {
    async fn run(mut self, found: mpsc::Sender<Result<Delivery, Problem>>) {
        if let Err(problem) = self.serve(&found).await {
            drop(found.try_send(Err(problem)));
            // What was handed over before may still be settled.
            found.closed().await;
        }
        self.settler.tell(self.settler.outstanding.last_words()).await;
    }

    /// Hands messages over until nobody takes them any more, or they may not be taken.
    async fn serve(&mut self, found: &mpsc::Sender<Result<Delivery, Problem>>) -> Result<(), Problem> {
        let server = Arc::clone(&self.settler.server);
        let arrivals = server.runtime.signals::<Topic>(&self.settler.topic);
        let outstanding = Arc::clone(&self.settler.outstanding);
        let mut renewal = tokio::time::interval_at(tokio::time::Instant::now() + RENEW_EVERY, RENEW_EVERY);
        renewal.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // Both wait from before the look, so that what comes meanwhile is heard of.
            let mut arrival = std::pin::pin!(arrivals.next());
            arrival.as_mut().enable();
            let mut freed = std::pin::pin!(outstanding.freed.notified());
            freed.as_mut().enable();
            let now = tokio::time::Instant::now();
            let until = match self.fill(found).await {
                Ok(true) => continue,
                Ok(false) => self.due.map_or(LOOK_EVERY, |due| (due - now).clamp(LOOK_AGAIN, LOOK_EVERY)),
                Err(failure) if is_passing(&failure) => {
                    tracing::debug!(%failure, topic = %self.settler.topic, "a subscription rests");
                    PROBLEM_PAUSE
                }
                Err(failure) => return Err(server.problem(&failure)),
            };
            tokio::select! {
                () = arrival => {}
                () = freed => {}
                () = tokio::time::sleep_until(now + until) => {}
                _ = renewal.tick() => self.renew().await,
                () = found.closed() => return Ok(()),
                problem = self.pass.over() => return Err(problem),
            }
        }
    }

    /// Hands over what there is room for; whether there may be more.
    async fn fill(&mut self, found: &mpsc::Sender<Result<Delivery, Problem>>) -> Result<bool, Failure> {
        self.due = None;
        let room = self.settler.outstanding.room();
        if room == 0 {
            return Ok(false);
        }
        let leased = self.lease(u16::try_from(room).unwrap_or(u16::MAX)).await?;
        let read = match self.read(&leased).await {
            Ok(read) => read,
            Err(failure) => {
                self.settler.tell(leased.into_iter().map(settled_as(Outcome::Back)).collect()).await;
                return Err(failure);
            }
        };
        let mut gone = Vec::new();
        for &(number, attempts) in &leased {
            match read.get(&number) {
                Some(message) => {
                    self.settler.outstanding.add(number, attempts);
                    // There is room for as many as may be outstanding; one that nobody takes is given back in the end.
                    drop(found.try_send(Ok(Delivery { number, attempts, message: message.clone() })));
                }
                // Its time is over, or it was let go.
                None => gone.push(Settled { number, attempts, outcome: Outcome::Done }),
            }
        }
        self.settler.tell(gone).await;
        Ok(!leased.is_empty())
    }

    /// Reads what was leased, a run without gaps at once, as far as one read reaches.
    async fn read(&self, leased: &[(u64, u32)]) -> Result<HashMap<u64, Stored>, Failure> {
        let mut messages = HashMap::default();
        let mut at = 0;
        while let Some(&(from, _)) = leased.get(at) {
            let follows = |(offset, (number, _)): &(u64, &(u64, u32))| *number == from + offset;
            let run = (0..).zip(&leased[at..]).take_while(follows).count().min(usize::from(READ_MAX));
            let read = Read { from, limit: u16::try_from(run).unwrap_or(u16::MAX) };
            let Settler { server, topic, .. } = &self.settler;
            messages.extend(server.ask_topic(topic, read, self.settler.header()).await?);
            at += run;
        }
        Ok(messages)
    }

    /// Says what became of messages, and takes others, in one commit.
    async fn lease(&mut self, max: u16) -> Result<Vec<(u64, u32)>, Failure> {
        let settler = &self.settler;
        let settled = settler.outstanding.take_settled();
        let settle = settled.clone();
        let lease = Lease { group: settler.group.clone(), max, lease_ms: lease_ms(), from: Start::Now, settle };
        let leased = match settler.server.ask_topic(&settler.topic, lease, settler.header()).await {
            Ok(leased) => leased,
            Err(failure) => {
                settler.outstanding.put_back(settled);
                return Err(failure);
            }
        };
        if is_wanted_again(&settled) {
            // By others of the group, too.
            settler.server.runtime.signal::<Topic>(&settler.topic);
        }
        let now = settler.server.now();
        self.due = leased.due_at.map(|at| tokio::time::Instant::now() + at.since(now));
        Ok(leased.messages)
    }

    /// What is still being worked on does not go to somebody else.
    async fn renew(&self) {
        let messages = self.settler.outstanding.all();
        if messages.is_empty() {
            return;
        }
        let Settler { server, topic, group, .. } = &self.settler;
        let renew = Renew { group: group.clone(), messages, lease_ms: lease_ms() };
        if let Err(error) = server.ask_topic(topic, renew, self.settler.header()).await {
            tracing::debug!(%error, %topic, "leases were not renewed; what they are for may come twice");
        }
    }
}

fn settled_as(outcome: Outcome) -> impl Fn((u64, u32)) -> Settled {
    move |(number, attempts)| Settled { number, attempts, outcome }
}

fn is_wanted_again(outcomes: &[Settled]) -> bool {
    outcomes.iter().any(|settled| settled.outcome != Outcome::Done)
}

fn lease_ms() -> u64 {
    u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX)
}

/// Whether the same may go well in a moment.
fn is_passing(failure: &Failure) -> bool {
    match failure {
        Failure::Overloaded { .. }
        | Failure::Rejected(Rejection::Throttled { .. })
        | Failure::Expired
        | Failure::Backoff { .. }
        | Failure::Panicked { .. }
        | Failure::Lost { .. } => true,
        Failure::Rejected(_)
        | Failure::Cycle { .. }
        | Failure::AlreadyDone { .. }
        | Failure::Keyless { .. }
        | Failure::Unregistered { .. }
        | Failure::Stopping => false,
    }
}
