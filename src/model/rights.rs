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

/// Everything that one block of a token takes; what it does not name it leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attenuation {
    /// Operations and scopes.
    pub narrowing: Narrowing,
    /// From when on the token counts no more.
    pub expires_at: Option<Timestamp>,
    /// The only instances left.
    pub instances: Option<Vec<CompactString>>,
    /// The only listeners left.
    pub audiences: Option<Vec<CompactString>>,
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
    /// It speaks for other instances only.
    #[error("the token was narrowed to other instances")]
    Instance,
    /// It is meant for other listeners only.
    #[error("the token was narrowed to another audience")]
    Audience,
}

impl Narrowing {
    /// Whether it leaves what is wanted.
    pub fn leaves(&self, want: &Want<'_>) -> bool {
        self.operations.hold(want.operation)
            && self.scopes.as_ref().is_none_or(|scopes| scopes.iter().any(|scope| scope.holds(want)))
    }
}

impl TokenRights {
    /// Takes what one more block takes. Nothing that was taken comes back.
    pub fn narrow(&mut self, by: Attenuation) {
        let Attenuation { narrowing, expires_at, instances, audiences } = by;
        if narrowing != Narrowing::default() {
            self.narrowings.push(narrowing);
        }
        self.expires_at = self.expires_at.into_iter().chain(expires_at).min();
        self.instances = common(self.instances.take(), instances);
        self.audiences = common(self.audiences.take(), audiences);
    }

    /// Whether the token leaves what is wanted.
    pub fn leave(&self, want: &Want<'_>, now: Timestamp) -> Result<(), Narrowed> {
        self.count(now)?;
        if self.narrowings.iter().all(|narrowing| narrowing.leaves(want)) { Ok(()) } else { Err(Narrowed::Scope) }
    }

    /// Whether its time is not over.
    pub fn count(&self, now: Timestamp) -> Result<(), Narrowed> {
        self.expires_at.filter(|until| *until <= now).map_or(Ok(()), |until| Err(Narrowed::Expired(until)))
    }

    /// Whether it may speak for an instance. A request that names none needs not to ask.
    pub fn speak_for(&self, instance: &str) -> Result<(), Narrowed> {
        if holds(self.instances.as_ref(), instance) { Ok(()) } else { Err(Narrowed::Instance) }
    }

    /// Whether a listener of this name, or of none, takes it.
    pub fn meant_for(&self, audience: Option<&str>) -> Result<(), Narrowed> {
        let meant = match audience {
            Some(audience) => holds(self.audiences.as_ref(), audience),
            None => self.audiences.is_none(),
        };
        if meant { Ok(()) } else { Err(Narrowed::Audience) }
    }

    /// Whether nothing at all was taken from it.
    pub fn is_whole(&self) -> bool {
        let Self { issued_at: _, expires_at, narrowings, instances, audiences } = self;
        expires_at.is_none() && narrowings.is_empty() && instances.is_none() && audiences.is_none()
    }
}

fn holds(names: Option<&Vec<CompactString>>, name: &str) -> bool {
    names.is_none_or(|names| names.iter().any(|each| each == name))
}

/// What two lists have in common; no list holds everything.
fn common(one: Option<Vec<CompactString>>, other: Option<Vec<CompactString>>) -> Option<Vec<CompactString>> {
    match (one, other) {
        (Some(mut one), Some(other)) => {
            one.retain(|name| other.contains(name));
            Some(one)
        }
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<CompactString> {
        names.iter().copied().map(CompactString::from).collect()
    }

    #[test]
    fn each_block_takes_and_none_gives_back() {
        let mut rights = TokenRights::default();
        assert!(rights.is_whole() && rights.meant_for(None).is_ok() && rights.speak_for("b").is_ok());
        let (first, second) = (Timestamp::from_unix_ms(10), Timestamp::from_unix_ms(20));
        let take = |expires_at, instances: &[&str], audiences: &[&str]| Attenuation {
            expires_at: Some(expires_at),
            instances: Some(names(instances)),
            audiences: Some(names(audiences)),
            ..Attenuation::default()
        };
        rights.narrow(take(first, &["a", "b"], &["east"]));
        rights.narrow(take(second, &["b", "c"], &["east", "west"]));
        assert_eq!((rights.expires_at, rights.instances.clone()), (Some(first), Some(names(&["b"]))));
        assert_eq!((rights.speak_for("b"), rights.speak_for("a")), (Ok(()), Err(Narrowed::Instance)));
        assert_eq!((rights.meant_for(Some("east")), rights.meant_for(Some("west"))), (Ok(()), Err(Narrowed::Audience)));
        assert_eq!(rights.meant_for(None), Err(Narrowed::Audience));
        assert_eq!(
            (rights.count(Timestamp::from_unix_ms(9)), rights.count(first)),
            (Ok(()), Err(Narrowed::Expired(first)))
        );
        assert!(!rights.is_whole());
    }
}
