//! A kind of one's own: an account that is durable, keeps its promises, and pays another account.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{error::Error, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use service_twin::{
    model::{Key, Timestamp},
    runtime::Runtime,
    store::memory::MemoryStore,
    twin::{Decide, Decision, Durable, Effect, Message, Rejection, Snapshot, Turn, Twin, Wire},
};

#[derive(Default, Serialize, Deserialize)]
struct Account {
    cents: u64,
}

/// Facts, not wishes: applying one cannot fail.
#[derive(Serialize, Deserialize)]
enum Change {
    Received(u64),
    Paid(u64),
}

impl Twin for Account {
    const KIND: &'static str = "account";
    type Persistence = Durable;
    type Change = Change;

    fn create(_key: &str) -> Self {
        Self::default()
    }

    fn apply(&mut self, change: &Change, _at: Timestamp) {
        match change {
            Change::Received(cents) => self.cents += cents,
            Change::Paid(cents) => self.cents -= cents,
        }
    }
}

/// The schema number grows when the fields change; the fingerprint notices if that was forgotten.
impl Snapshot for Account {
    const SCHEMA: u16 = 1;
    const FIELDS: &'static str = "cents:u64";
}

#[derive(Debug, Serialize, Deserialize)]
struct Receive(u64);

impl Message for Receive {
    type Twin = Account;
    type Reply = u64;
}

/// What travels between twins has a name that outlives this build.
impl Wire for Receive {
    const NAME: &'static str = "receive/1";
}

impl Decide<Receive> for Account {
    fn decide(&self, Receive(cents): &Receive, _: &Turn<'_>) -> Result<Decision<Change, u64>, Rejection> {
        let sum = self.cents.checked_add(*cents).ok_or_else(|| Rejection::invalid("that is too much"))?;
        Ok(Decision::new(sum).change(Change::Received(*cents)))
    }
}

#[derive(Debug)]
struct Pay(u64, Key);

impl Message for Pay {
    type Twin = Account;
    type Reply = u64;
}

impl Decide<Pay> for Account {
    fn decide(&self, Pay(cents, to): &Pay, _: &Turn<'_>) -> Result<Decision<Change, u64>, Rejection> {
        let left = self.cents.checked_sub(*cents).ok_or_else(|| Rejection::invalid("there is not enough"))?;
        // Leaves once the change is durable, at least once and with a key of its own: so exactly once in effect.
        Ok(Decision::new(left).change(Change::Paid(*cents)).effect(Effect::tell(to.clone(), Receive(*cents))))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let runtime = Runtime::builder().store(Arc::new(MemoryStore::new())).kind::<Account>().wire::<Receive>().start()?;
    let (ann, bob) = (runtime.twin("ann"), Key::parse("bob")?);
    ann.ask(Receive(500)).await?;
    println!("ann has {} left", runtime.twin("ann").ask(Pay(200, bob.clone())).await?);
    println!("too much: {}", runtime.twin("ann").ask(Pay(900, bob)).await.expect_err("she has 300"));
    while runtime.twin("bob").ask(Receive(0)).await? < 200 {
        tokio::task::yield_now().await;
    }
    println!("bob has 200");
    assert_eq!(runtime.drain(Duration::from_secs(10)).await.unsettled, 0);
    Ok(())
}
