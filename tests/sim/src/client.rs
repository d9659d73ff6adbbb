//! A caller: sends, waits, repeats, gives up.

use std::time::Duration;

use futures_util::future::join_all;
use rand::{Rng, rngs::StdRng};
use service_twin::{
    model::{Key, RequestKey},
    runtime::Runtime,
};

use crate::{
    book::{Do, Look, Op},
    history::{Shared, Sight},
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
            45..60 => Op::Tell(other),
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
            94..100 => Op::Scrawl,
            _ => Op::Append,
        }
    }

    /// One operation, repeated under its key if it has one.
    async fn single(&mut self, twin: usize) {
        let (op, keyed) = (self.op(twin), self.random.random_bool(0.5));
        let id = self.history.borrow_mut().begin(self.number, twin, op.clone(), keyed);
        let name = key(twin);
        let request = RequestKey::new(&format!("k{id}"), self.runtime.now());
        for _ in 0..if keyed { 4 } else { 1 } {
            let attempt = self.history.borrow_mut().attempt(id);
            let mut ask = self.runtime.twin(&name).ask(Do { id, op: op.clone() });
            if keyed {
                ask = ask.key(request.clone());
            }
            if self.random.random_bool(0.1) {
                ask = ask.deadline(Duration::from_millis(self.random.random_range(0..50)));
            }
            let answer = ask.await;
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
            sent.push((id, attempt, op));
        }
        let asks = sent.iter().map(|(id, attempt, op)| {
            let (runtime, history, name) = (&self.runtime, &self.history, &name);
            async move {
                let answer = runtime.twin(name).ask(Do { id: *id, op: op.clone() }).await;
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
        let ask = self.runtime.twin(&name).ask(Do { id, op });
        if let Ok(answer) = tokio::time::timeout(within, ask.into_future()).await {
            self.history.borrow_mut().end(self.runtime.now(), id, attempt, &answer);
        }
    }
}
