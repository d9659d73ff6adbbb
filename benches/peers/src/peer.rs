//! A counter in each runtime, written as its documentation shows.

use coerce::actor::{
    context::ActorContext,
    message::{Handler, Message as CoerceMessage},
    scheduler::ActorType,
    system::ActorSystem,
};
use kameo::actor::Spawn as _;

use crate::workloads::State;

/// A runtime whose actors can be started and asked.
pub(crate) trait Peer: Send + Sync + 'static {
    const NAME: &'static str;
    type Actor: Clone + Send + Sync + 'static;
    /// Starts a counter.
    fn start() -> impl Future<Output = Self::Actor> + Send;
    /// Adds, and returns the new count.
    fn add(actor: &Self::Actor, by: u64) -> impl Future<Output = u64> + Send;
}

pub(crate) struct Kameo;

pub(crate) struct KameoCounter(State);

struct Add(u64);

impl kameo::Actor for KameoCounter {
    type Args = State;
    type Error = kameo::error::Infallible;

    async fn on_start(state: State, _: kameo::actor::ActorRef<Self>) -> Result<Self, Self::Error> {
        Ok(Self(state))
    }
}

impl kameo::message::Message<Add> for KameoCounter {
    type Reply = u64;

    async fn handle(&mut self, Add(by): Add, _: &mut kameo::message::Context<Self, u64>) -> u64 {
        self.0.count += by;
        self.0.count
    }
}

impl Peer for Kameo {
    const NAME: &'static str = "kameo";
    type Actor = kameo::actor::ActorRef<KameoCounter>;

    async fn start() -> Self::Actor {
        KameoCounter::spawn(State::default())
    }

    async fn add(actor: &Self::Actor, by: u64) -> u64 {
        actor.ask(Add(by)).await.expect("the actor answers")
    }
}

pub(crate) struct Ractor;

struct RactorCounter;

pub(crate) struct RactorAdd(u64, ractor::RpcReplyPort<u64>);

impl ractor::Actor for RactorCounter {
    type Msg = RactorAdd;
    type State = State;
    type Arguments = ();

    async fn pre_start(&self, _: ractor::ActorRef<RactorAdd>, (): ()) -> Result<State, ractor::ActorProcessingErr> {
        Ok(State::default())
    }

    async fn handle(
        &self,
        _: ractor::ActorRef<RactorAdd>,
        RactorAdd(by, reply): RactorAdd,
        state: &mut State,
    ) -> Result<(), ractor::ActorProcessingErr> {
        state.count += by;
        Ok(reply.send(state.count)?)
    }
}

impl Peer for Ractor {
    const NAME: &'static str = "ractor";
    type Actor = ractor::ActorRef<RactorAdd>;

    async fn start() -> Self::Actor {
        ractor::Actor::spawn(None, RactorCounter, ()).await.expect("the actor starts").0
    }

    async fn add(actor: &Self::Actor, by: u64) -> u64 {
        actor.call(|reply| RactorAdd(by, reply), None).await.expect("the actor runs").unwrap()
    }
}

/// Local actors; its sharding adds a directory, a codec and a second actor to each call.
pub(crate) struct Coerce;

pub(crate) struct CoerceCounter(State);

#[async_trait::async_trait]
impl coerce::actor::Actor for CoerceCounter {}

impl CoerceMessage for Add {
    type Result = u64;
}

#[async_trait::async_trait]
impl Handler<Add> for CoerceCounter {
    async fn handle(&mut self, Add(by): Add, _: &mut ActorContext) -> u64 {
        self.0.count += by;
        self.0.count
    }
}

impl Peer for Coerce {
    const NAME: &'static str = "coerce";
    type Actor = coerce::actor::LocalActorRef<CoerceCounter>;

    async fn start() -> Self::Actor {
        let actor = CoerceCounter(State::default());
        let id = coerce::actor::new_actor_id();
        ActorSystem::global_system().new_actor(id, actor, ActorType::Anonymous).await.expect("the actor starts")
    }

    async fn add(actor: &Self::Actor, by: u64) -> u64 {
        actor.send(Add(by)).await.expect("the actor answers")
    }
}
