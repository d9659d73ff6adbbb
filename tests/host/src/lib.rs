//! What an embedding host writes: two kinds of its own, and calls to them by name.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use service_twin::{
    model::Timestamp,
    runtime::{Runtime, StartError},
    store::Store,
    twin::{Decide, Decision, Durable, Failure, Message, Rejection, Snapshot, Turn, Twin, Volatile},
};

/// Somebody on a line: in memory only.
#[derive(Debug, Default)]
pub struct Visitor {
    calls: u64,
}

impl Twin for Visitor {
    const KIND: &'static str = "visitor";
    type Persistence = Volatile;
    type Change = ();
    fn create(_: &str) -> Self {
        Self::default()
    }
    fn apply(&mut self, (): &(), _: Timestamp) {
        self.calls += 1;
    }
}

/// Says hello; answers how often it was said.
#[derive(Clone, Debug)]
pub struct Hello;

impl Message for Hello {
    type Twin = Visitor;
    type Reply = u64;
}

impl Decide<Hello> for Visitor {
    fn decide(&self, _: &Hello, _: &Turn<'_>) -> Result<Decision<(), u64>, Rejection> {
        Ok(Decision::new(self.calls + 1).change(()))
    }
}

/// An account: what it says is durable.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Account {
    cents: u64,
}

/// What happened to an account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Moved {
    /// Into it.
    In(u64),
    /// Out of it.
    Out(u64),
}

impl Twin for Account {
    const KIND: &'static str = "account";
    type Persistence = Durable;
    type Change = Moved;
    fn create(_: &str) -> Self {
        Self::default()
    }
    fn apply(&mut self, moved: &Moved, _: Timestamp) {
        match moved {
            Moved::In(cents) => self.cents += cents,
            Moved::Out(cents) => self.cents -= cents,
        }
    }
}

impl Snapshot for Account {
    const SCHEMA: u16 = 1;
    const FIELDS: &'static str = "cents:u64";
}

/// Puts money in; answers the balance.
#[derive(Clone, Debug)]
pub struct Deposit(pub u64);

impl Message for Deposit {
    type Twin = Account;
    type Reply = u64;
}

impl Decide<Deposit> for Account {
    fn decide(&self, &Deposit(cents): &Deposit, _: &Turn<'_>) -> Result<Decision<Moved, u64>, Rejection> {
        match self.cents.checked_add(cents) {
            Some(balance) => Ok(Decision::new(balance).change(Moved::In(cents))),
            None => Err(Rejection::Limit { limit: "balance".into(), max: u64::MAX, actual: cents }),
        }
    }
}

/// Takes money out, if there is enough; answers the balance.
#[derive(Clone, Debug)]
pub struct Withdraw(pub u64);

impl Message for Withdraw {
    type Twin = Account;
    type Reply = u64;
}

impl Decide<Withdraw> for Account {
    fn decide(&self, &Withdraw(cents): &Withdraw, _: &Turn<'_>) -> Result<Decision<Moved, u64>, Rejection> {
        match self.cents.checked_sub(cents) {
            Some(balance) => Ok(Decision::new(balance).change(Moved::Out(cents))),
            None => Err(Rejection::Limit { limit: "balance".into(), max: self.cents, actual: cents }),
        }
    }
}

/// Starts a runtime with the host's kinds.
///
/// # Errors
/// When the store cannot be claimed or threads cannot be started.
pub fn start(store: Arc<dyn Store>) -> Result<Runtime, StartError> {
    Runtime::builder().store(store).kind::<Visitor>().kind::<Account>().start()
}

/// How many accounts the story opens.
pub const ACCOUNTS: u64 = 100;
const DRAIN: Duration = Duration::from_secs(20);

/// The same story on whatever runtime the host has: hellos, deposits, one refusal, a drain.
///
/// # Errors
/// When a twin fails.
pub async fn story(runtime: &Runtime) -> Result<(), Failure> {
    for expected in 1..=3 {
        assert_eq!(runtime.twin("ada").ask(Hello).await?, expected);
    }
    for account in 0..ACCOUNTS {
        let name = format!("account-{account}");
        assert_eq!(runtime.twin(&name).ask(Deposit(account)).await?, account);
    }
    let refused = runtime.twin("account-7").ask(Withdraw(8)).await;
    assert!(matches!(refused, Err(Failure::Rejected(Rejection::Limit { max: 7, actual: 8, .. }))), "{refused:?}");
    assert_eq!(runtime.twin("account-7").ask(Withdraw(7)).await?, 0);
    assert_eq!(runtime.drain(DRAIN).await.unsettled, 0);
    Ok(())
}

/// What a later start must find.
///
/// # Errors
/// When a twin fails.
pub async fn epilogue(runtime: &Runtime) -> Result<(), Failure> {
    assert_eq!(runtime.twin("ada").ask(Hello).await?, 1, "a visitor is forgotten");
    for account in (0..ACCOUNTS).filter(|account| *account != 7) {
        let name = format!("account-{account}");
        assert_eq!(runtime.twin(&name).ask(Deposit(1)).await?, account + 1, "an account is not");
    }
    assert_eq!(runtime.twin("account-7").ask(Deposit(1)).await?, 1);
    assert_eq!(runtime.drain(DRAIN).await.unsettled, 0);
    Ok(())
}
