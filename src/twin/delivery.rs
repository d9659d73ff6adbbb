//! One message on its way to a twin, its type erased: what inboxes hold, effects carry and commits release.

use std::{
    any::{Any, TypeId},
    fmt,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

use super::{Changes, Decide, Failure, Message, Needs, Rejection, Turn, Twin, Wire, decision::More, persistence};
use crate::model::{Consistency, Header, Key, Lane, Principal, Rider, Sealed};

/// How a call ended.
pub type Answer<R> = Result<R, Failure>;

/// A message for a twin of kind `K`. The result stays inside until [`Rider::release`] lets it go.
pub trait Delivery<K: Twin>: Rider {
    /// Principal, deadline, key, path.
    fn header(&self) -> &Header;
    /// The lane it waits in.
    fn lane(&self) -> Lane;
    /// Bytes it holds, for the inbox's bound.
    fn bytes(&self) -> usize;
    /// The pages its turn reads.
    fn needs(&self) -> Needs;
    /// Lets the twin decide; keeps reply or rejection.
    fn rule(&self, state: &K, turn: &Turn<'_>) -> Ruling<K::Change>;
    /// Lets the twin fold what the message observed.
    fn observe(&self, state: &mut K, turn: &Turn<'_>) -> Changes<K::Change>;
    /// Ends it without (or in spite of) a turn; its waiter hears at once.
    fn fail(&self, failure: Failure);
    /// Keeps a failure as the result, in place of a turn; it is released like a reply.
    fn refuse(&self, failure: Failure);
    /// Hash of the encoded request; `None` for a message that is not [`Wire`].
    fn fingerprint(&self) -> Option<u64>;
    /// The kept reply, encoded; `None` after a rejection or if not [`Wire`].
    fn reply_bytes(&self) -> Option<Vec<u8>>;
    /// Keeps a recorded reply as the result, in place of a turn.
    fn replay(&self, reply: &[u8]);
    /// Name and encoded message, for a runtime elsewhere; fails with its type if it is not registered to travel.
    fn pack(&self) -> Answer<(&'static str, Vec<u8>)>;
    /// Ends it with what a runtime elsewhere answered.
    fn arrive(&self, answer: Answer<&[u8]>);
}

/// What a turn decided, without the reply.
#[derive(Debug)]
pub enum Ruling<C> {
    /// Go on with this.
    Decided {
        /// Facts to apply.
        changes: Changes<C>,
        /// Pages and effects.
        more: Option<Box<More>>,
    },
    /// The twin refused.
    Rejected,
}

/// Encodes and decodes around one message type; present for [`Wire`] messages only.
pub struct Codec<M: Message> {
    name: &'static str,
    request: fn(&M) -> Vec<u8>,
    reply: fn(&M::Reply) -> Vec<u8>,
    read: fn(&[u8]) -> Option<M::Reply>,
}

impl<M: Message> Clone for Codec<M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: Message> Copy for Codec<M> {}

impl<M: Message> fmt::Debug for Codec<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Codec({})", self.name)
    }
}

impl<M: Wire> Codec<M> {
    /// Of one message type.
    pub fn of() -> Self {
        Self {
            name: M::NAME,
            request: persistence::to_bytes,
            reply: persistence::to_bytes,
            read: |bytes| persistence::from_bytes(bytes).ok(),
        }
    }
}

struct Slot<R> {
    result: Option<Answer<R>>,
    /// Whether a runtime elsewhere answered.
    arrived: bool,
    ready: bool,
    waker: Option<Waker>,
}

type Then<R> = Box<dyn Fn(Answer<R>) + Send + Sync>;

/// One call: message, result, and whoever waits for it. One allocation from door to reply.
pub struct Call<M: Message> {
    header: Header,
    message: M,
    codec: Option<Codec<M>>,
    slot: Mutex<Slot<M::Reply>>,
    then: Option<Then<M::Reply>>,
}

impl<M: Message> fmt::Debug for Call<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Call<{}>", std::any::type_name::<M>())
    }
}

impl<M: Message> Call<M> {
    /// A call that has not had its turn.
    pub fn new(header: Header, message: M) -> Self {
        Self {
            header,
            message,
            codec: None,
            slot: Mutex::new(Slot { result: None, arrived: false, ready: false, waker: None }),
            then: None,
        }
    }

    /// A call whose turn ran on the caller and whose result waits for a commit.
    pub fn decided(header: Header, message: M, result: Answer<M::Reply>) -> Self {
        let call = Self::new(header, message);
        call.slot.lock().result = Some(result);
        call
    }

    /// The same able to be recorded in an idempotency ring.
    #[must_use]
    pub fn wired(self) -> Self
    where
        M: Wire,
    {
        self.coded(Some(Codec::of()))
    }

    /// The same able to be recorded and to travel, if there is a codec.
    #[must_use]
    pub fn coded(mut self, codec: Option<Codec<M>>) -> Self {
        self.codec = codec.or(self.codec);
        self
    }

    /// The same with something to do with the answer instead of a waiting future.
    #[must_use]
    pub fn then(mut self, then: impl Fn(Answer<M::Reply>) + Send + Sync + 'static) -> Self {
        self.then = Some(Box::new(then));
        self
    }

    /// The message, handed back if nobody else holds the call.
    pub fn into_message(self: Arc<Self>) -> Option<M> {
        Arc::into_inner(self).map(|call| call.message)
    }

    /// Takes the answer once it was released.
    pub fn poll_answer(&self, context: &mut Context<'_>) -> Poll<Answer<M::Reply>> {
        let mut slot = self.slot.lock();
        if slot.ready
            && let Some(result) = slot.result.take()
        {
            return Poll::Ready(result);
        }
        match &mut slot.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Whether the answer holds only as long as this runtime's lease does: it is from memory here, and proven by nothing else.
    pub fn rests_on_lease(&self) -> bool {
        self.header.consistency() == Consistency::Lease && !self.slot.lock().arrived
    }

    fn finish(&self, replace: Option<Failure>) {
        let mut slot = self.slot.lock();
        if slot.ready {
            return;
        }
        slot.ready = true;
        if let Some(failure) = replace {
            slot.result = Some(Err(failure));
        }
        if let Some(then) = &self.then {
            let result = slot.result.take();
            drop(slot);
            if let Some(result) = result {
                then(result);
            }
            return;
        }
        let waker = slot.waker.take();
        drop(slot);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<M: Message> Rider for Call<M> {
    fn release(&self, sealed: &Sealed) {
        self.finish(sealed.into());
    }
}

impl<M: Message> Delivery<M::Twin> for Call<M> {
    fn header(&self) -> &Header {
        &self.header
    }

    fn lane(&self) -> Lane {
        M::LANE
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.message.heap_bytes()
    }

    fn needs(&self) -> Needs {
        self.message.needs()
    }

    fn rule(&self, state: &M::Twin, turn: &Turn<'_>) -> Ruling<<M::Twin as Twin>::Change> {
        let (result, ruling) = match state.decide(&self.message, turn) {
            Ok(decision) => (Ok(decision.reply), Ruling::Decided { changes: decision.changes, more: decision.more }),
            Err(rejection) => (Err(Failure::Rejected(rejection)), Ruling::Rejected),
        };
        self.slot.lock().result = Some(result);
        ruling
    }

    fn observe(&self, state: &mut M::Twin, turn: &Turn<'_>) -> Changes<<M::Twin as Twin>::Change> {
        state.observe(&self.message, turn)
    }

    fn fail(&self, failure: Failure) {
        self.finish(Some(failure));
    }

    fn refuse(&self, failure: Failure) {
        self.slot.lock().result = Some(Err(failure));
    }

    fn fingerprint(&self) -> Option<u64> {
        self.codec.as_ref().map(|codec| xxhash_rust::xxh3::xxh3_64(&(codec.request)(&self.message)))
    }

    fn reply_bytes(&self) -> Option<Vec<u8>> {
        let codec = self.codec.as_ref()?;
        match &self.slot.lock().result {
            Some(Ok(reply)) => Some((codec.reply)(reply)),
            Some(Err(_)) | None => None,
        }
    }

    fn pack(&self) -> Answer<(&'static str, Vec<u8>)> {
        let unregistered = || Failure::Unregistered { name: std::any::type_name::<M>().into() };
        self.codec.as_ref().map(|codec| (codec.name, (codec.request)(&self.message))).ok_or_else(unregistered)
    }

    fn arrive(&self, answer: Answer<&[u8]>) {
        self.slot.lock().arrived = true;
        match answer {
            Ok(reply) => {
                self.replay(reply);
                self.finish(None);
            }
            Err(failure) => self.finish(Some(failure)),
        }
    }

    fn replay(&self, reply: &[u8]) {
        let read = self.codec.as_ref().and_then(|codec| (codec.read)(reply));
        self.slot.lock().result =
            Some(read.ok_or_else(|| Failure::Unregistered { name: std::any::type_name::<M>().into() }));
    }
}

/// A parcel for the host of one kind: inside is an `Arc<dyn Delivery<K>>`.
pub struct Handed(Box<dyn Any + Send>);

impl Handed {
    /// Wraps a delivery.
    pub fn new<K: Twin>(delivery: Arc<dyn Delivery<K>>) -> Self {
        Self(Box::new(delivery))
    }

    /// Unwraps it; `None` if it is for another kind.
    pub fn open<K: Twin>(self) -> Option<Arc<dyn Delivery<K>>> {
        self.0.downcast().ok().map(|delivery| *delivery)
    }
}

impl fmt::Debug for Handed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handed")
    }
}

/// Takes parcels to twins of any kind; the runtime is one.
pub trait PostOffice: Send + Sync {
    /// Posts a parcel; whatever happens to it, it hears of it itself.
    fn post(&self, kind: TypeId, key: &Key, parcel: Handed);
}

type Back<R> = fn(Answer<R>, &Sender);

/// A message inside an effect: told, or asked with the way its answer comes back.
pub struct Post<M: Message> {
    message: M,
    back: Option<(&'static str, Back<M::Reply>)>,
}

impl<M: Wire> Post<M> {
    /// A message nobody answers.
    pub fn tell(message: M) -> Self {
        Self { message, back: None }
    }

    /// A message whose answer comes back as a `B`.
    pub fn ask<B: Wire + From<Answer<M::Reply>>>(message: M) -> Self {
        Self { message, back: Some((B::NAME, bring_back::<M::Reply, B>)) }
    }
}

fn bring_back<R, B: Wire + From<Answer<R>>>(answer: Answer<R>, sender: &Sender) {
    let header = Header::default().with_principal(Principal::Runtime);
    let (message, key) = (B::from(answer), &sender.key);
    let call = match (&sender.settled, sender.number) {
        (Some(settled), Some(number)) => {
            let settled = Arc::clone(settled);
            // An answer that its asker cannot take is given up: nobody could make it a better one.
            Call::new(header.with_settles(number), message).wired().then(move |taken| match &taken {
                Err(failure) if !is_final(failure) && !matches!(failure, Failure::Panicked { .. }) => {
                    settled(Went::Unanswered(failure.clone()));
                }
                Ok(_) | Err(_) => settled(Went::Done),
            })
        }
        (Some(_), None) | (None, _) => Call::new(header, message).wired(),
    };
    let call: Arc<dyn Delivery<B::Twin>> = Arc::new(call);
    sender.office.post(TypeId::of::<B::Twin>(), key, Handed::new(call));
}

/// Whether sending the same again would end the same.
fn is_final(failure: &Failure) -> bool {
    match failure {
        Failure::Rejected(_) | Failure::AlreadyDone { .. } | Failure::Cycle { .. } => true,
        Failure::Overloaded { .. }
        | Failure::Expired
        | Failure::Backoff { .. }
        | Failure::Panicked { .. }
        | Failure::Lost { .. }
        | Failure::Keyless { .. }
        | Failure::Unregistered { .. }
        | Failure::Stopping => false,
    }
}

/// How the delivery of a promise went.
#[derive(Clone, Debug)]
pub enum Went {
    /// It was done, or refused for good.
    Done,
    /// The target cannot tell whether it had it before, and nor can the sender: it is dropped.
    TooOld,
    /// The target did not take it, as far as the failure's outcome says; it is sent again.
    Failed(Failure),
    /// The target took it, but the asker could not take the answer; it is sent again.
    Unanswered(Failure),
}

/// Hears how a delivery went.
pub type Settled = Arc<dyn Fn(Went) + Send + Sync>;

/// Who sent an effect, and who hears how its delivery went.
pub struct Sender {
    /// The way back.
    pub office: Arc<dyn PostOffice>,
    /// The sending twin.
    pub key: Key,
    /// Told when the delivery ended; a volatile sender does not ask.
    pub settled: Option<Settled>,
    /// The sender's promise; a volatile sender makes none.
    pub number: Option<u64>,
    /// Whether this is the first delivery, or each one before was certainly not applied: a key that is too old is then
    /// no reason to give up.
    pub surely_new: bool,
}

/// What an effect holds: becomes a parcel when it is dispatched.
pub trait Forwarded: Send {
    /// Makes the parcel.
    fn into_parcel(self: Box<Self>, header: Header, sender: Sender) -> Handed;
    /// Encodes the message for an outbox.
    fn encode(&self) -> Vec<u8>;
    /// The name of the message that carries the answer back; `None` for a tell.
    fn back(&self) -> Option<&'static str>;
}

impl<M: Wire> Forwarded for Post<M> {
    fn into_parcel(self: Box<Self>, header: Header, sender: Sender) -> Handed {
        let back = self.back;
        let call: Arc<dyn Delivery<M::Twin>> = Arc::new(Call::new(header, self.message).wired().then(move |answer| {
            let too_old = matches!(&answer, Err(Failure::Rejected(Rejection::KeyTooOld { .. })));
            let again =
                answer.as_ref().err().filter(|failure| !is_final(failure) || (too_old && sender.surely_new)).cloned();
            match (&back, &sender.settled) {
                // The promise of an ask is settled by the asker's turn on the answer.
                (Some((_, back)), Some(_)) if again.is_none() => back(answer, &sender),
                (Some(_) | None, Some(settled)) => settled(match again {
                    Some(failure) => Went::Failed(failure),
                    None if too_old => Went::TooOld,
                    None => Went::Done,
                }),
                (Some((_, back)), None) => back(answer, &sender),
                (None, None) => {}
            }
        }));
        Handed::new(call)
    }

    fn encode(&self) -> Vec<u8> {
        persistence::to_bytes(&self.message)
    }

    fn back(&self) -> Option<&'static str> {
        self.back.as_ref().map(|(name, _)| *name)
    }
}
