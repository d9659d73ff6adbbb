//! What a token leaves of its holder's rights: every narrowing must agree.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{
    Timestamp,
    scope::{Operations, Pattern, Want},
};

/// What a verified token says, compiled at the door.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TokenRights {
    /// When the token was issued.
    pub issued_at: Timestamp,
    /// From when on it counts no more: the earliest that any block says.
    pub expires_at: Option<Timestamp>,
    /// Each must agree to a request.
    pub narrowings: Vec<Narrowing>,
    /// The only instances it may speak for; any if `None`.
    pub instances: Option<Vec<CompactString>>,
    /// The only listeners that take it; any if `None`.
    pub audiences: Option<Vec<CompactString>>,
}

/// One block's word on what is left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Narrowing {
    /// The only operations left.
    pub operations: Operations,
    /// The only scopes left; any if `None`.
    pub scopes: Option<Vec<Pattern>>,
}

impl Narrowing {
    /// Whether it leaves what is wanted.
    pub fn leaves(&self, want: &Want<'_>) -> bool {
        self.operations.hold(want.operation)
            && self.scopes.as_ref().is_none_or(|scopes| scopes.iter().any(|scope| scope.holds(want)))
    }
}

/// Why a token does not reach as far as a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Narrowed {
    /// Its time is over.
    #[error("the token expired at {0}")]
    Expired(Timestamp),
    /// A narrowing does not leave it.
    #[error("the token was narrowed to other operations or scopes")]
    Scope,
}

impl TokenRights {
    /// Whether the token leaves what is wanted.
    pub fn leave(&self, want: &Want<'_>, now: Timestamp) -> Result<(), Narrowed> {
        if let Some(until) = self.expires_at.filter(|until| *until <= now) {
            return Err(Narrowed::Expired(until));
        }
        if self.narrowings.iter().all(|narrowing| narrowing.leaves(want)) { Ok(()) } else { Err(Narrowed::Scope) }
    }
}
