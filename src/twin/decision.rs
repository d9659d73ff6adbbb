//! What a turn decided: changes, pages, effects, a reply.

use std::{any::TypeId, borrow::Cow, collections::BTreeMap, sync::Arc};

use compact_str::CompactString;
use smallvec::SmallVec;

use super::{Forwarded, Twin, Wire, delivery::Post};
use crate::model::{Key, limits};

/// The changes of one turn, in order; the common single one lies in place.
pub type Changes<C> = SmallVec<[C; 1]>;

/// Pages by name.
pub type Pages = BTreeMap<String, Vec<u8>>;

/// One page to write or delete in the commit of this turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageWrite {
    /// Name, unique within the twin.
    pub name: CompactString,
    /// The bytes, at most [`limits::PAGE_BYTES_MAX`]; `None` deletes.
    pub value: Option<Vec<u8>>,
}

/// What a twin decided. A query is a decision without changes.
#[derive(Debug)]
pub struct Decision<C, R> {
    /// Facts, applied in this order.
    pub changes: Changes<C>,
    /// The answer; it leaves when everything the turn could see is durable.
    pub reply: R,
    /// What most turns do not have.
    pub more: Option<Box<More>>,
}

/// The rarer parts of a decision.
#[derive(Debug, Default)]
pub struct More {
    /// Pages written in the same commit.
    pub pages: Vec<PageWrite>,
    /// What shall happen outside once this is durable, in order.
    pub effects: Vec<Effect>,
    /// Whether the journal up to and with this turn is forgotten.
    pub forgets: bool,
}

impl<C, R> Decision<C, R> {
    /// Changes nothing and answers.
    pub fn new(reply: R) -> Self {
        Self { changes: Changes::new(), reply, more: None }
    }

    /// Adds a change.
    #[must_use]
    pub fn change(mut self, change: C) -> Self {
        self.changes.push(change);
        self
    }

    /// Adds changes.
    #[must_use]
    pub fn changes(mut self, changes: impl IntoIterator<Item = C>) -> Self {
        self.changes.extend(changes);
        self
    }

    /// Writes (or deletes) a page in the same commit.
    #[must_use]
    pub fn page(mut self, name: &str, value: Option<Vec<u8>>) -> Self {
        self.more.get_or_insert_default().pages.push(PageWrite { name: name.into(), value });
        self
    }

    /// Forgets the journal up to and with this turn: it begins anew with the state that the turn leaves. Its pages are
    /// deleted by this commit and, if they are many, the next ones.
    #[must_use]
    pub fn forget_past(mut self) -> Self {
        self.more.get_or_insert_default().forgets = true;
        self
    }

    /// Adds an effect.
    #[must_use]
    pub fn effect(mut self, effect: Effect) -> Self {
        self.more.get_or_insert_default().effects.push(effect);
        self
    }
}

/// Something that happens once the turn is durable.
#[derive(Debug)]
pub struct Effect(pub(crate) EffectBody);

/// The inside of an effect, for the runtime.
pub enum EffectBody {
    /// A message to another twin.
    Send {
        /// `TypeId` of the target's kind.
        kind: TypeId,
        /// Name of the target's kind.
        kind_name: &'static str,
        /// The target.
        key: Key,
        /// Name of the message.
        name: &'static str,
        /// The message.
        message: Box<dyn Forwarded>,
    },
    /// An event for subscribers.
    Emit(Event),
}

impl std::fmt::Debug for EffectBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Send { kind_name, key, name, .. } => write!(f, "Send({kind_name}:{key} {name})"),
            Self::Emit(event) => write!(f, "Emit({})", event.name),
        }
    }
}

impl Effect {
    /// Tells another twin something: at least once, with a key of its own, for a durable sender; at most once for a
    /// volatile one.
    pub fn tell<M: Wire>(key: Key, message: M) -> Self {
        Self::send(key, Post::tell(message))
    }

    /// Asks another twin; the answer comes back to the asking twin as the message `B` made of it.
    pub fn ask<M, B>(key: Key, message: M) -> Self
    where
        M: Wire,
        B: Wire + From<super::Answer<M::Reply>>,
    {
        Self::send(key, Post::ask::<B>(message))
    }

    fn send<M: Wire>(key: Key, post: Post<M>) -> Self {
        Self(EffectBody::Send {
            kind: TypeId::of::<M::Twin>(),
            kind_name: <M::Twin as Twin>::KIND,
            key,
            name: M::NAME,
            message: Box::new(post),
        })
    }

    /// Publishes an event to whoever watches this twin or all of them.
    pub fn emit(event: Event) -> Self {
        Self(EffectBody::Emit(event))
    }
}

/// A fact for watchers; released when the commit that made it true is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// CloudEvents type, such as `twin.health.changed`.
    pub name: Cow<'static, str>,
    /// CloudEvents data: JSON.
    pub data: Arc<[u8]>,
}

/// The search terms of one twin: at most [`limits::TERMS_MAX`] of [`limits::TERMS_BYTES_MAX`] bytes together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    terms: Vec<CompactString>,
    bytes: usize,
}

impl Terms {
    /// Adds `name=value`; says whether there was room.
    pub fn add(&mut self, name: &str, value: &str) -> bool {
        let bytes = name.len() + 1 + value.len();
        if self.terms.len() == limits::TERMS_MAX || self.bytes + bytes > limits::TERMS_BYTES_MAX {
            return false;
        }
        let mut term = CompactString::with_capacity(bytes);
        term.push_str(name);
        term.push('=');
        term.push_str(value);
        if let Err(at) = self.terms.binary_search(&term) {
            self.terms.insert(at, term);
            self.bytes += bytes;
        }
        true
    }

    /// The terms, sorted, each once.
    pub fn as_slice(&self) -> &[CompactString] {
        &self.terms
    }
}
