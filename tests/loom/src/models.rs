//! A shard reduced to what its threads share: an inbox, a lock, callers, and the one who drains.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use loom::{
    future::block_on,
    sync::Arc,
    thread::{self, JoinHandle},
};

use crate::{
    inbox::{Bounds, Inbox, Taken},
    sync::Mutex,
};

/// A message: who sent it, and the how manyth of theirs it is.
type Message = (usize, usize);

/// What to get wrong, to see that a model notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Nothing.
    None,
    /// The drain looks before it registers its waker.
    LookThenRegister,
    /// The drain opens the door when it takes messages, not after their turns.
    FinishBeforeTurns,
    /// The door looks at the lock alone.
    DoorIgnoresPending,
}

struct Shard {
    inbox: Inbox<Message, ()>,
    /// The turns, in the order in which they were had.
    turns: Mutex<Vec<Message>>,
    mutation: Mutation,
}

impl Shard {
    fn new(items_max: usize, mutation: Mutation) -> Arc<Self> {
        let inbox = Inbox::new(Bounds { items_max, bytes_max: 1024 });
        Arc::new(Self { inbox, turns: Mutex::new(Vec::new()), mutation })
    }

    /// `tell`: always by the inbox.
    fn tell(&self, message: Message) {
        self.inbox.push(0, 1, message).expect("the model's inbox has room");
    }

    /// `ask`: by the door if it is open, otherwise by the inbox.
    fn ask(&self, message: Message) {
        let door = match self.mutation {
            Mutation::DoorIgnoresPending => self.turns.try_lock(),
            Mutation::None | Mutation::LookThenRegister | Mutation::FinishBeforeTurns => self.inbox.enter(&self.turns),
        };
        match door {
            Some(mut turns) => turns.push(message),
            None => self.tell(message),
        }
    }

    /// One poll of the drain, as `Work::poll` does it: ready when `total` turns were had.
    fn poll(&self, context: &mut Context<'_>, total: usize) -> Poll<()> {
        loop {
            let mut taken = Taken::default();
            let any = if self.mutation == Mutation::LookThenRegister {
                let any = self.inbox.take(&mut taken);
                self.inbox.register(context.waker());
                any
            } else {
                self.inbox.register(context.waker());
                self.inbox.take(&mut taken)
            };
            if !any {
                return if self.turns.lock().len() >= total { Poll::Ready(()) } else { Poll::Pending };
            }
            let had = taken.lanes.iter().map(std::collections::VecDeque::len).sum();
            if self.mutation == Mutation::FinishBeforeTurns {
                self.inbox.finished(had);
            }
            self.turns.lock().extend(taken.lanes.into_iter().flatten());
            if self.mutation != Mutation::FinishBeforeTurns {
                self.inbox.finished(had);
            }
        }
    }
}

fn drain(shard: &Arc<Shard>, total: usize) -> JoinHandle<()> {
    let shard = Arc::clone(shard);
    thread::spawn(move || block_on(poll_fn(|context| shard.poll(context, total))))
}

fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// Two callers tell, one drains: every message has its turn, whoever was asleep when it came.
pub fn no_wake_up_is_lost(mutation: Mutation) {
    explore(move || {
        let shard = Shard::new(4, mutation);
        let drain = drain(&shard, 2);
        let other = {
            let shard = Arc::clone(&shard);
            thread::spawn(move || shard.tell((1, 0)))
        };
        shard.tell((0, 0));
        other.join().expect("a caller ends");
        drain.join().expect("the drain ends");
        assert_eq!(shard.inbox.pending(), 0, "the door is open again");
    });
}

/// A note (a commit ended) wakes the drain as a message does, and is no reason to keep the door shut.
pub fn a_note_wakes_the_drain() {
    explore(|| {
        let shard = Shard::new(4, Mutation::None);
        let waiting = {
            let shard = Arc::clone(&shard);
            thread::spawn(move || {
                block_on(poll_fn(|context| {
                    let mut taken = Taken::default();
                    shard.inbox.register(context.waker());
                    shard.inbox.take(&mut taken);
                    if taken.notes.is_empty() { Poll::Pending } else { Poll::Ready(()) }
                }));
            })
        };
        shard.inbox.note([()]);
        assert_eq!(shard.inbox.pending(), 0, "notes do not close the door");
        waiting.join().expect("the drain ends");
    });
}

/// A caller that tells and then asks, beside another one: its messages have their turns in the order sent.
pub fn a_caller_is_served_in_the_order_sent(mutation: Mutation) {
    explore(move || {
        let shard = Shard::new(4, mutation);
        let drain = drain(&shard, 3);
        let other = {
            let shard = Arc::clone(&shard);
            thread::spawn(move || shard.ask((1, 0)))
        };
        shard.tell((0, 0));
        shard.ask((0, 1));
        other.join().expect("a caller ends");
        // By the door, the last turn may come without waking anybody: as a reply would, this does.
        shard.inbox.note([()]);
        drain.join().expect("the drain ends");
        let turns = shard.turns.lock();
        assert_eq!(turns.len(), 3, "nothing is lost, nothing is served twice");
        let ours: Vec<usize> = turns.iter().filter(|(caller, _)| *caller == 0).map(|(_, number)| *number).collect();
        assert_eq!(ours, [0, 1], "the order sent");
    });
}

/// A message that finds its lane full comes back, and leaves the door as it was.
pub fn a_refused_message_leaves_the_door_as_it_was() {
    explore(|| {
        let shard = Shard::new(1, Mutation::None);
        let other = {
            let shard = Arc::clone(&shard);
            thread::spawn(move || usize::from(shard.inbox.push(0, 1, (1, 0)).is_ok()))
        };
        let taken = usize::from(shard.inbox.push(0, 1, (0, 0)).is_ok());
        let taken = taken + other.join().expect("a caller ends");
        assert_eq!(taken, 1, "the lane has room for one");
        assert_eq!(shard.inbox.pending(), 1);
        drain(&shard, 1).join().expect("the drain ends");
        assert_eq!(shard.inbox.pending(), 0);
    });
}
