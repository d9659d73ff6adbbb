//! The caller's side: a reference to a twin, and the future of its answer.

use std::{
    cell::Cell,
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use super::{Refused, Runtime, turn::Inline};
use crate::{
    model::{Consistency, Header, Principal, RequestKey, TraceParent},
    twin::{Answer, Call, Failure, Message, Wire},
};

/// A twin by its key; the kind follows from the message.
#[derive(Clone, Copy)]
pub struct TwinRef<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) key: &'a str,
    pub(super) consistency: Consistency,
}

impl<'a> TwinRef<'a> {
    /// The same with what its answers shall rest on; the lease of its owner if nothing else is said.
    #[must_use]
    pub fn consistency(self, consistency: Consistency) -> Self {
        Self { consistency, ..self }
    }

    /// Asks: the future's answer is durable, or says what is certain.
    pub fn ask<M: Message>(self, message: M) -> Ask<'a, M> {
        let header = Header::default().with_consistency(self.consistency);
        Ask { twin: self, message, header, timeout: None, wire: |call| call }
    }

    /// Tells without an answer; the message is handed back if it is not taken.
    pub fn tell<M: Message + fmt::Debug>(self, message: M) -> Result<(), Refused<M>> {
        self.tell_with(Header::default(), message)
    }

    /// Tells on somebody's behalf.
    pub fn tell_with<M: Message + fmt::Debug>(self, header: Header, message: M) -> Result<(), Refused<M>> {
        match self.runtime.host::<M::Twin>() {
            Ok(host) => host.tell(self.key, message, header),
            Err(failure) => Err(Refused { failure, message: Some(message) }),
        }
    }
}

/// A question on its way; `.await` it.
#[must_use = "an ask does nothing until it is awaited"]
pub struct Ask<'a, M: Message> {
    twin: TwinRef<'a>,
    message: M,
    header: Header,
    timeout: Option<Duration>,
    wire: fn(Call<M>) -> Call<M>,
}

impl<M: Message> Ask<'_, M> {
    /// Drops the message if its turn has not come within this time.
    pub fn deadline(mut self, within: Duration) -> Self {
        self.timeout = Some(within);
        self
    }

    /// Speaks for somebody.
    pub fn principal(mut self, principal: Principal) -> Self {
        self.header = self.header.with_principal(principal);
        self
    }

    /// Belongs to a trace.
    pub fn trace(mut self, trace: TraceParent) -> Self {
        self.header = self.header.with_trace(trace);
        self
    }

    /// Says what the answer shall rest on.
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.header = self.header.with_consistency(consistency);
        self
    }

    /// Sets everything that travels beside the message.
    pub fn header(mut self, header: Header) -> Self {
        self.header = header;
        self
    }

    /// Repeats under the same key change nothing and get the same answer.
    pub fn key(mut self, key: RequestKey) -> Self
    where
        M: Wire,
    {
        self.header = self.header.with_request(key);
        self.wire = Call::wired;
        self
    }

    /// Takes a message whose header may carry an idempotency key.
    pub fn wired(mut self) -> Self
    where
        M: Wire,
    {
        self.wire = Call::wired;
        self
    }
}

impl<'a, M: Message> IntoFuture for Ask<'a, M> {
    type Output = Answer<M::Reply>;
    type IntoFuture = Answering<'a, M>;

    fn into_future(self) -> Answering<'a, M> {
        Answering(State::Start(self))
    }
}

/// The answer to come.
///
/// # Cancel safety
/// Dropped before its first poll, the message was never sent. Dropped later, the turn still runs and its reply is lost.
#[must_use = "futures do nothing unless polled"]
pub struct Answering<'a, M: Message>(State<'a, M>);

enum State<'a, M: Message> {
    Start(Ask<'a, M>),
    Waiting(&'a Runtime, Arc<Call<M>>),
    /// Known, but other tasks of this thread come first.
    Yielding(Answer<M::Reply>),
    Done,
}

// Nothing inside is ever pinned.
impl<M: Message> Unpin for Answering<'_, M> {}

/// Turns that callers on one thread run before one of them lets its neighbours go first.
const INLINE_TURNS_MAX: u32 = 32;

thread_local! {
    static INLINE_TURNS: Cell<u32> = const { Cell::new(0) };
}

impl<M: Message> Future for Answering<'_, M> {
    type Output = Answer<M::Reply>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match std::mem::replace(&mut self.0, State::Done) {
            State::Start(Ask { twin, message, mut header, timeout, wire }) => {
                let host = match twin.runtime.host::<M::Twin>() {
                    Ok(host) => host,
                    Err(failure) => return Poll::Ready(Err(failure)),
                };
                if let Some(timeout) = timeout {
                    header.deadline = Some(twin.runtime.now().after(timeout));
                }
                let consistency = header.consistency();
                match host.ask(twin.key, message, header, wire) {
                    Inline::Now(answer) => {
                        let answer = twin.runtime.inner.shared.leased(answer, || consistency == Consistency::Lease);
                        let turns = INLINE_TURNS.get() + 1;
                        if turns < INLINE_TURNS_MAX {
                            INLINE_TURNS.set(turns);
                            return Poll::Ready(answer);
                        }
                        INLINE_TURNS.set(0);
                        self.0 = State::Yielding(answer);
                        context.waker().wake_by_ref();
                        Poll::Pending
                    }
                    Inline::Later(call) => self.wait(twin.runtime, call, context),
                }
            }
            State::Waiting(runtime, call) => self.wait(runtime, call, context),
            State::Yielding(answer) => Poll::Ready(answer),
            State::Done => Poll::Ready(Err(Failure::Stopping)),
        }
    }
}

impl<'a, M: Message> Answering<'a, M> {
    fn wait(&mut self, runtime: &'a Runtime, call: Arc<Call<M>>, context: &mut Context<'_>) -> Poll<Answer<M::Reply>> {
        let polled = call.poll_answer(context);
        if polled.is_pending() {
            self.0 = State::Waiting(runtime, call);
            return Poll::Pending;
        }
        polled.map(|answer| runtime.inner.shared.leased(answer, || call.rests_on_lease()))
    }
}
