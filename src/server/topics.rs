//! Topics on their way in and out: the right to them is asked of the service's twin, the messages of the topic's.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Duration,
};

use ahash::HashMap;
use compact_str::CompactString;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, mpsc};

use super::{
    Server,
    identity::Identity,
    pass::Pass,
    problem::{Code, Problem},
};
use crate::{
    bus::{
        Append, Lease, Outcome, Read, Settle, Stored, Topic,
        topic::{Start, Wish},
    },
    capability::topics::Permit,
    model::{Header, Key, ServiceId},
    twin::{Failure, Message, Rejection, Wire},
};

/// Messages that one subscription has at once.
const OUTSTANDING_MAX: usize = 64;
/// How long a subscriber has for a message before it comes again.
const LEASE: Duration = Duration::from_secs(60);
/// How long a subscription rests after a problem.
const PROBLEM_PAUSE: Duration = Duration::from_secs(1);
/// How often a subscription looks by itself, should nobody tell it.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Tells subscriptions of this node that a topic has something new.
#[derive(Debug, Default)]
pub struct Arrivals(Mutex<HashMap<Key, Weak<Notify>>>);

impl Arrivals {
    fn of(&self, topic: &Key) -> Arc<Notify> {
        let mut waiting = self.0.lock();
        if let Some(known) = waiting.get(topic).and_then(Weak::upgrade) {
            return known;
        }
        waiting.retain(|_, notify| notify.strong_count() > 0);
        let notify = Arc::new(Notify::new());
        waiting.insert(topic.clone(), Arc::downgrade(&notify));
        notify
    }

    fn tell(&self, topic: &Key) {
        let known = self.0.lock().get(topic).and_then(Weak::upgrade);
        if let Some(notify) = known {
            notify.notify_waiters();
        }
    }
}

/// The key of a topic's twin: `namespace/component/topic`.
pub fn topic_key(service: &ServiceId, component: &str, topic: &str) -> Result<Key, Failure> {
    let key = Key::parse(&format!("{}/{component}/{topic}", service.namespace()));
    key.map_err(|error| Rejection::invalid(format!("the topic: {error}")).into())
}

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
        let key = topic_key(service, component, topic)?;
        let numbers = self.ask_topic(&key, Append { messages }, header).await?;
        self.arrivals.tell(&key);
        Ok(numbers)
    }

    /// Begins to take a topic's messages for a service: what comes from now on, shared with its other subscriptions.
    pub async fn subscribe(
        self: &Arc<Self>,
        service: &ServiceId,
        component: &str,
        topic: &str,
        identity: &Identity,
        header: Header,
    ) -> Result<Subscription, Failure> {
        let room = Arc::new(Semaphore::new(OUTSTANDING_MAX));
        let settler = Settler {
            server: Arc::clone(self),
            topic: topic_key(service, component, topic)?,
            group: service.as_str().into(),
            header,
            room,
        };
        let mut pump = Pump {
            pass: Pass::new(Arc::clone(self), identity),
            service: service.clone(),
            name: compact_str::format_compact!("{component}/{topic}"),
            due: None,
            settler: settler.clone(),
        };
        pump.permit().await?;
        // The group is there before anybody hears that it is.
        pump.lease(0).await?;
        let (found, messages) = mpsc::channel(OUTSTANDING_MAX);
        tokio::spawn(pump.run(found));
        Ok(Subscription { messages, settler })
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

/// Takes messages of a topic, one after the other; at most 64 are not settled at once.
pub struct Subscription {
    messages: mpsc::Receiver<Result<Delivery, Problem>>,
    settler: Settler,
}

impl Subscription {
    /// Waits for the next message. Whoever may not subscribe any more hears it in place of the next one.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Result<Delivery, Problem> {
        let over = || Err(Problem::new(Code::Stopping, "the subscription is over"));
        self.messages.recv().await.unwrap_or_else(over)
    }

    /// Says what became of a message that was handed over.
    pub async fn settle(&self, number: u64, outcome: Outcome) -> Result<(), Failure> {
        self.settler.room.add_permits(1);
        self.settler.tell(vec![(number, outcome)]).await
    }

    /// Gives back what was handed over and never settled, and what was not handed over.
    pub async fn close(mut self, unsettled: Vec<u64>) {
        self.messages.close();
        let mut back = unsettled;
        while let Some(waiting) = self.messages.recv().await {
            back.extend(waiting.map(|delivery| delivery.number));
        }
        self.settler.give_back(back).await;
    }
}

/// Speaks for one group of a topic.
#[derive(Clone)]
struct Settler {
    server: Arc<Server>,
    topic: Key,
    group: CompactString,
    header: Header,
    /// How many more messages may be out.
    room: Arc<Semaphore>,
}

impl Settler {
    fn header(&self) -> Header {
        let within = Duration::from_secs(self.server.config.deadline_s);
        self.header.clone().with_deadline(self.server.now().after(within))
    }

    async fn tell(&self, outcomes: Vec<(u64, Outcome)>) -> Result<(), Failure> {
        let is_wanted_again = outcomes.iter().any(|(_, outcome)| *outcome != Outcome::Done);
        self.server.ask_topic(&self.topic, Settle { group: self.group.clone(), outcomes }, self.header()).await?;
        if is_wanted_again {
            self.server.arrivals.tell(&self.topic);
        }
        Ok(())
    }

    async fn give_back(&self, numbers: Vec<u64>) {
        if numbers.is_empty() {
            return;
        }
        let back = numbers.into_iter().map(|number| (number, Outcome::Back)).collect();
        if let Err(error) = self.tell(back).await {
            let topic = &self.topic;
            tracing::debug!(%error, %topic, "messages were not given back; they come again when their lease is over");
        }
    }
}

/// Leases and reads messages for one subscription, for as long as somebody takes them.
struct Pump {
    settler: Settler,
    service: ServiceId,
    name: CompactString,
    pass: Pass,
    /// When something comes again.
    due: Option<tokio::time::Instant>,
}

impl Pump {
    async fn permit(&self) -> Result<(), Failure> {
        let Settler { server, .. } = &self.settler;
        server.permit_topic(&self.service, &self.name, Wish::Subscribe, self.settler.header()).await
    }

    async fn run(mut self, found: mpsc::Sender<Result<Delivery, Problem>>) {
        while let Err(problem) = self.round(&found).await {
            if found.send(Err(problem)).await.is_err() {
                break;
            }
            // Whoever hears of a problem ends the subscription, or goes on with it.
            tokio::select! {
                () = found.closed() => break,
                () = tokio::time::sleep(PROBLEM_PAUSE) => {}
            }
        }
    }

    /// Hands messages over until nobody takes them any more.
    async fn round(&mut self, found: &mpsc::Sender<Result<Delivery, Problem>>) -> Result<(), Problem> {
        let (server, topic) = (Arc::clone(&self.settler.server), self.settler.topic.clone());
        let arrivals = server.arrivals.of(&topic);
        let room = Arc::clone(&self.settler.room);
        let problem = |failure: Failure| server.problem(&failure);
        loop {
            // Waits from before the look, so that what comes meanwhile is heard of.
            let mut arrival = std::pin::pin!(arrivals.notified());
            arrival.as_mut().enable();
            let is_room = tokio::select! {
                room = room.acquire() => room,
                () = found.closed() => return Ok(()),
            };
            drop(is_room);
            let mut leased = VecDeque::from(self.fetch().await.map_err(problem)?);
            let is_empty = leased.is_empty();
            while let Some(delivery) = leased.pop_front() {
                let number = delivery.number;
                let refused = match self.pass.check().await {
                    Ok(()) => self.permit().await.err().map(problem),
                    Err(problem) => Some(problem),
                };
                if refused.is_none() && found.send(Ok(delivery)).await.is_ok() {
                    continue;
                }
                self.settler.room.add_permits(leased.len() + 1);
                let back = [number].into_iter().chain(leased.into_iter().map(|delivery| delivery.number)).collect();
                self.settler.give_back(back).await;
                return refused.map_or(Ok(()), Err);
            }
            if !is_empty {
                continue;
            }
            let soon = tokio::time::Instant::now() + LOOK_EVERY;
            let until = self.due.map_or(soon, |due| due.min(soon));
            tokio::select! {
                () = arrival => {}
                () = tokio::time::sleep_until(until) => {}
                () = found.closed() => return Ok(()),
                problem = self.pass.over() => return Err(problem),
            }
        }
    }

    /// Leases what there is room for, and reads it.
    async fn fetch(&mut self) -> Result<Vec<Delivery>, Failure> {
        let room = self.settler.room.available_permits();
        let leased = self.lease(u16::try_from(room).unwrap_or(u16::MAX)).await?;
        let (mut found, mut gone) = (Vec::with_capacity(leased.len()), Vec::new());
        let mut at = 0;
        while let Some(&(from, _)) = leased.get(at) {
            // A run without gaps is read at once.
            let follows = |(offset, (number, _)): &(u64, &(u64, u32))| *number == from + offset;
            let run = (0..).zip(&leased[at..]).take_while(follows).count();
            let read = Read { from, limit: u16::try_from(run).unwrap_or(u16::MAX) };
            let settler = &self.settler;
            let messages = settler.server.ask_topic(&settler.topic, read, settler.header()).await?;
            for &(number, attempts) in &leased[at..at + run] {
                match messages.iter().find(|(read, _)| *read == number) {
                    Some((_, message)) => found.push(Delivery { number, attempts, message: message.clone() }),
                    // Its time is over, or it was let go.
                    None => gone.push((number, Outcome::Done)),
                }
            }
            at += run;
        }
        if !gone.is_empty() {
            self.settler.tell(gone).await?;
        }
        self.settler.room.forget_permits(found.len());
        Ok(found)
    }

    async fn lease(&mut self, max: u16) -> Result<Vec<(u64, u32)>, Failure> {
        let lease_ms = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
        let settler = &self.settler;
        let lease = Lease { group: settler.group.clone(), max, lease_ms, from: Start::Now };
        let leased = settler.server.ask_topic(&settler.topic, lease, settler.header()).await?;
        let now = settler.server.now();
        self.due = leased.due_at.map(|at| tokio::time::Instant::now() + at.since(now));
        Ok(leased.messages)
    }
}
