//! Twin to twin, driver (c): one twin asks another in its own shard, again and again; two turns a call.

use std::{
    sync::mpsc::{Sender, channel},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use service_twin::{
    model::{Key, Timestamp},
    runtime::Runtime,
    twin::{Answer, Decide, Decision, Effect, Message, Rejection, Turn, Twin, Volatile, Wire},
};
use tokio::runtime::Handle;

use super::{Bars, Contestant, Lap, Row, Setting, ours};

/// Calls of one chain; a chain's mean is one sample.
const CHAIN: u64 = 2_000;

/// Hears when a chain ended.
static ENDED: Mutex<Option<Sender<()>>> = Mutex::new(None);

/// A twin that asks its partner.
pub(crate) struct Player {
    partner: Option<Key>,
    left: u64,
    answered: u64,
}

/// What a player decided.
pub(crate) enum Change {
    Serve(Key),
    Answered,
    Returned,
}

/// Starts a chain.
struct Serve(Key);

/// One call.
#[derive(Serialize, Deserialize)]
struct Hit;

/// Its answer.
#[derive(Serialize, Deserialize)]
struct Back(bool);

/// How many calls this player answered.
struct Score;

impl From<Answer<u64>> for Back {
    fn from(answer: Answer<u64>) -> Self {
        Self(answer.is_ok())
    }
}

impl Twin for Player {
    const KIND: &'static str = "player";
    type Persistence = Volatile;
    type Change = Change;

    fn create(_: &str) -> Self {
        Self { partner: None, left: 0, answered: 0 }
    }

    fn apply(&mut self, change: &Change, _: Timestamp) {
        match change {
            Change::Serve(partner) => {
                self.partner = Some(partner.clone());
                self.left = CHAIN;
            }
            Change::Answered => self.left -= 1,
            Change::Returned => self.answered += 1,
        }
    }
}

impl Message for Serve {
    type Twin = Player;
    type Reply = ();
}

impl Decide<Serve> for Player {
    fn decide(&self, Serve(partner): &Serve, _: &Turn<'_>) -> Result<Decision<Change, ()>, Rejection> {
        Ok(Decision::new(())
            .change(Change::Serve(partner.clone()))
            .effect(Effect::ask::<Hit, Back>(partner.clone(), Hit)))
    }
}

impl Message for Hit {
    type Twin = Player;
    type Reply = u64;
}

impl Wire for Hit {
    const NAME: &'static str = "hit/1";
}

impl Decide<Hit> for Player {
    fn decide(&self, _: &Hit, _: &Turn<'_>) -> Result<Decision<Change, u64>, Rejection> {
        Ok(Decision::new(self.answered + 1).change(Change::Returned))
    }
}

impl Message for Back {
    type Twin = Player;
    type Reply = ();
}

impl Wire for Back {
    const NAME: &'static str = "back/1";
}

impl Decide<Back> for Player {
    fn decide(&self, Back(good): &Back, _: &Turn<'_>) -> Result<Decision<Change, ()>, Rejection> {
        assert!(good, "the partner answered with a failure");
        let decision = Decision::new(()).change(Change::Answered);
        match &self.partner {
            Some(partner) if self.left > 1 => Ok(decision.effect(Effect::ask::<Hit, Back>(partner.clone(), Hit))),
            Some(_) | None => {
                if let Some(ended) = ENDED.lock().take() {
                    ended.send(()).expect("the bench waits");
                }
                Ok(decision)
            }
        }
    }
}

impl Message for Score {
    type Twin = Player;
    type Reply = u64;
}

impl Decide<Score> for Player {
    fn decide(&self, _: &Score, _: &Turn<'_>) -> Result<Decision<Change, u64>, Rejection> {
        Ok(Decision::new(self.answered))
    }
}

/// The row.
pub(crate) fn twin_to_twin(setting: &Setting) -> Row {
    let (host, runtime) = (super::Host::start(1), ours::start_in_memory(setting.cpus));
    let (one, other) = partners();
    let mut played = 0;
    let ours = Contestant::ours(move |time| {
        let lap = play(host.handle(), &runtime, &one, &other, time);
        played += lap.ops;
        let score = host.handle().block_on(async { runtime.twin(&other).ask(Score).await });
        assert_eq!(score.expect("the twin answers"), played, "every call was answered once");
        lap
    });
    Row {
        workload: "W3-twin-to-twin",
        driver: "c",
        durability: "none",
        bars: Bars { p50_us: Some(0.3), ..Bars::default() },
        contestants: vec![ours],
    }
}

/// Two keys of one slot, so of one shard.
fn partners() -> (Key, Key) {
    let key = |at: u32| Key::parse(&format!("player/{at}")).expect("a valid key");
    let slot = |key: &Key| Key::hash_of(key) >> 52;
    let one = key(0);
    let other = (1..1_000_000).map(key).find(|other| slot(other) == slot(&one)).expect("one in 4,096 keys");
    (one, other)
}

#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn play(host: &Handle, runtime: &Runtime, one: &Key, other: &Key, time: Duration) -> Lap {
    let mut nanos = Vec::new();
    let lap = Lap::of(|| {
        let started = Instant::now();
        while started.elapsed() < time {
            let (send, receive) = channel();
            *ENDED.lock() = Some(send);
            let chain = Instant::now();
            let served = host.block_on(async { runtime.twin(one).ask(Serve(other.clone())).await });
            served.expect("the twin serves");
            receive.recv().expect("the chain ends");
            nanos.push(u32::try_from(chain.elapsed().as_nanos() / u128::from(CHAIN)).unwrap_or(u32::MAX));
        }
        u64::try_from(nanos.len()).unwrap_or(0) * CHAIN
    });
    Lap { nanos, ..lap }
}
