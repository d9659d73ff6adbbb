//! A caller: sends, waits, repeats, gives up.

use std::time::Duration;

use futures_util::future::join_all;
use rand::{Rng, rngs::StdRng};
use service_twin::{
    model::{Key, RequestKey},
    runtime::Runtime,
    twin::{Answer, Failure},
};

use crate::{
    book::{Do, Look, Op, Slow, Sniff},
    history::{Shared, Sight},
    tally::Bump,
};

/// What a client needs.
pub struct Client {
    /// Its number, unique over all lives.
    pub number: usize,
    /// The runtime.
    pub runtime: Runtime,
    /// What callers were told.
    pub history: Shared,
    /// Its chance.
    pub random: StdRng,
    /// How many twins there are.
    pub twins: usize,
    /// How many things it does.
    pub steps: usize,
    /// Called after every step.
    pub check: std::rc::Rc<dyn Fn()>,
}

/// The key of a twin.
pub fn key(twin: usize) -> Key {
    Key::parse(&format!("t{twin}")).expect("a short name is a key")
}

impl Client {
    /// Does all its steps.
    pub async fn live(mut self) {
        for _ in 0..self.steps {
            let twin = self.random.random_range(0..self.twins);
            match self.random.random_range(0..100) {
                0..50 => self.single(twin).await,
                50..65 => self.burst(twin).await,
                65..80 => self.look(twin).await,
                80..85 => self.give_up(twin).await,
                85..88 => self.bump(twin).await,
                88 if twin > 0 && twin + 1 == self.twins => self.flood(twin).await,
                _ => {
                    let ms = self.random.random_range(0..1500);
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                }
            }
            (self.check)();
        }
    }

    /// What to do with a twin. The last of several may grow full, so nothing is told to it: it would refuse.
    fn op(&mut self, twin: usize) -> Op {
        let last = self.twins - 1;
        let other = key(self.random.random_range(0..last.max(1)));
        match self.random.random_range(0..100) {
            0..30 => Op::Append,
            30..45 => Op::AppendIfShort(self.random.random_range(0..12)),
            45..50 => Op::Tell(other),
            50..55 if other != key(twin) => Op::Ask(other),
            50..60 => Op::Tell(other),
            60..66 => Op::Shout(other),
            66..76 => {
                let ms = self.random.random_range(0..20_000);
                Op::Alarm(self.runtime.now().after(Duration::from_millis(ms)))
            }
            76..79 => Op::Boom,
            79 => Op::Bomb,
            80..86 if twin == last && last > 0 => Op::Pad(self.random.random_range(0..1200)),
            86..90 => Op::Page(self.random.random_range(0..3)),
            90..94 => Op::Count,
            94..97 => Op::Scrawl,
            97..100 => Op::Sniff(self.random.random_range(0..3)),
            _ => Op::Append,
        }
    }

    /// One operation, repeated under its key if it has one.
    async fn single(&mut self, twin: usize) {
        let op = self.op(twin);
        let keyed = self.random.random_bool(0.5) && !matches!(op, Op::Sniff(_));
        let slow = self.random.random_bool(0.2);
        let id = self.history.borrow_mut().begin(self.number, twin, op.clone(), keyed);
        let name = key(twin);
        let request = RequestKey::new(&format!("k{id}"), self.runtime.now());
        for _ in 0..if keyed { 4 } else { 1 } {
            let attempt = self.history.borrow_mut().attempt(id);
            let within = self.random.random_bool(0.1).then(|| Duration::from_millis(self.random.random_range(0..50)));
            let answer = ask(&self.runtime, &name, (id, op.clone(), slow), keyed.then_some(&request), within).await;
            let again = self.history.borrow_mut().end(self.runtime.now(), id, attempt, &answer);
            // Sometimes a repeat of what was answered, as a caller makes that lost the answer.
            if !again && self.random.random_bool(0.7) {
                break;
            }
            let ms = self.random.random_range(0..400);
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
    }

    /// Several at once, in order.
    async fn burst(&mut self, twin: usize) {
        let name = key(twin);
        let mut sent = Vec::new();
        for _ in 0..self.random.random_range(2..7) {
            let op = self.op(twin);
            let id = self.history.borrow_mut().begin(self.number, twin, op.clone(), false);
            let attempt = self.history.borrow_mut().attempt(id);
            sent.push((id, attempt, op, self.random.random_bool(0.2)));
        }
        let asks = sent.iter().map(|(id, attempt, op, slow)| {
            let (runtime, history, name) = (&self.runtime, &self.history, &name);
            async move {
                let answer = ask(runtime, name, (*id, op.clone(), *slow), None, None).await;
                history.borrow_mut().end(runtime.now(), *id, *attempt, &answer);
            }
        });
        join_all(asks).await;
    }

    async fn look(&mut self, twin: usize) {
        let name = key(twin);
        let seen = self.runtime.twin(&name).ask(Look).await;
        let mut history = self.history.borrow_mut();
        history.note(self.runtime.now(), &format!("look at {twin}: {seen:?}"));
        if let Ok((_, count, digest)) = seen {
            history.sights.push(Sight { twin, count, digest });
        }
    }

    /// Sends, and stops listening before the answer.
    async fn give_up(&mut self, twin: usize) {
        let op = self.op(twin);
        let id = self.history.borrow_mut().begin(self.number, twin, op.clone(), false);
        let attempt = self.history.borrow_mut().attempt(id);
        let name = key(twin);
        let within = Duration::from_millis(self.random.random_range(0..20));
        let ask = ask(&self.runtime, &name, (id, op, false), None, None);
        if let Ok(answer) = tokio::time::timeout(within, ask).await {
            self.history.borrow_mut().end(self.runtime.now(), id, attempt, &answer);
        }
    }

    /// Counts at a volatile twin, which may tell a book.
    async fn bump(&mut self, twin: usize) {
        let name = key(twin);
        let to = key(self.random.random_range(0..(self.twins - 1).max(1)));
        let tell = self.random.random_bool(0.5).then(|| {
            let mut history = self.history.borrow_mut();
            let id = history.begin(self.number, twin, Op::Whisper(to.clone()), false);
            history.attempt(id);
            (to, id)
        });
        let mut ask = self.runtime.twin(&name).ask(Bump(tell));
        let keyed = self.random.random_bool(0.2);
        if keyed {
            ask = ask.key(RequestKey::new("volatile", self.runtime.now()));
        }
        let answer = ask.await;
        let mut history = self.history.borrow_mut();
        history.note(self.runtime.now(), &format!("bump {twin}: {answer:?}"));
        match answer {
            Ok(tally) => {
                assert!(!keyed, "a volatile twin keeps no key");
                history.tallies.push(tally);
            }
            Err(Failure::Keyless { .. }) => assert!(keyed),
            Err(failure) => assert!(matches!(failure, Failure::Stopping), "{failure}"),
        }
    }

    /// More keyed requests than the ring keeps, then the first again: it is answered or too old, never done twice.
    async fn flood(&mut self, twin: usize) {
        const FLOOD: usize = 140;
        let name = key(twin);
        let mut first = None;
        for at in 0..=FLOOD {
            let (id, request) = match &first {
                Some((id, request)) if at == FLOOD => (*id, RequestKey::clone(request)),
                Some(_) | None => {
                    let id = self.history.borrow_mut().begin(self.number, twin, Op::Append, true);
                    (id, RequestKey::new(&format!("k{id}"), self.runtime.now()))
                }
            };
            first.get_or_insert_with(|| (id, request.clone()));
            let attempt = self.history.borrow_mut().attempt(id);
            let answer = ask(&self.runtime, &name, (id, Op::Append, false), Some(&request), None).await;
            self.history.borrow_mut().end(self.runtime.now(), id, attempt, &answer);
        }
    }
}

/// Asks by the way the operation is for.
async fn ask(
    runtime: &Runtime,
    name: &str,
    (id, op, slow): (u32, Op, bool),
    key: Option<&RequestKey>,
    within: Option<Duration>,
) -> Answer<u32> {
    if let Op::Sniff(bytes) = op {
        return runtime.twin(name).ask(Sniff { id, bytes }).await;
    }
    macro_rules! send {
        ($message:expr) => {{
            let mut ask = runtime.twin(name).ask($message);
            if let Some(key) = key {
                ask = ask.key(key.clone());
            }
            if let Some(within) = within {
                ask = ask.deadline(within);
            }
            ask.await
        }};
    }
    if slow { send!(Slow(Do { id, op })) } else { send!(Do { id, op }) }
}
