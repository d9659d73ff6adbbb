//! Who may do what: the grants a twin owns, and how they rule on a request.
//!
//! Nothing is allowed that no grant allows. Of the grants that are about a request the deepest one decides; of two
//! equally deep ones, the one that denies.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    Timestamp,
    scope::{Operations, Pattern, Want},
};

/// Whether a grant gives or takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Gives.
    Allow,
    /// Takes.
    Deny,
}

/// A right that a twin's service has, or expressly has not.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Grant {
    /// Gives or takes.
    pub effect: Effect,
    /// Which operations.
    pub operations: Operations,
    /// On what.
    pub scope: Pattern,
    /// From when on it counts no more.
    pub expires_at: Option<Timestamp>,
}

impl Grant {
    fn is_about(&self, want: &Want<'_>, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|until| now < until)
            && self.operations.hold(want.operation)
            && self.scope.holds(want)
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let effect = match self.effect {
            Effect::Allow => "allow",
            Effect::Deny => "deny",
        };
        write!(f, "{effect} {} {}", self.operations, self.scope)?;
        match self.expires_at {
            Some(until) => write!(f, " until {until}"),
            None => Ok(()),
        }
    }
}

/// The grant that decides on a request; `None` if none is about it.
pub fn deciding<'a>(grants: impl IntoIterator<Item = &'a Grant>, want: &Want<'_>, now: Timestamp) -> Option<&'a Grant> {
    let about = grants.into_iter().filter(|grant| grant.is_about(want, now));
    about.max_by_key(|grant| (grant.scope.depth(), grant.effect))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(effect: Effect, scope: &str) -> Grant {
        Grant { effect, operations: Operations::All, scope: Pattern::parse(scope).unwrap(), expires_at: None }
    }

    fn allows(grants: &[Grant], name: &str, at: u64) -> bool {
        let want = Want { capability: "state", name, operation: "get" };
        deciding(grants, &want, Timestamp::from_unix_ms(at)).is_some_and(|grant| grant.effect == Effect::Allow)
    }

    #[test]
    fn the_deeper_grant_decides_and_of_equals_the_denial() {
        let grants = [
            grant(Effect::Allow, "state:*"),
            grant(Effect::Deny, "state:orders/*"),
            grant(Effect::Allow, "state:orders/1"),
        ];
        assert!(allows(&grants, "cart/1", 0));
        assert!(!allows(&grants, "orders/2", 0));
        assert!(allows(&grants, "orders/1", 0));
        let even = [grant(Effect::Deny, "state:*"), grant(Effect::Allow, "state:*")];
        assert!(!allows(&even, "x", 0));
        assert!(!allows(&[], "x", 0), "nothing is allowed that no grant allows");
    }

    #[test]
    fn an_expired_grant_neither_gives_nor_takes() {
        let until =
            |effect, scope: &str, at| Grant { expires_at: Some(Timestamp::from_unix_ms(at)), ..grant(effect, scope) };
        let grants = [until(Effect::Allow, "state:*", 10), until(Effect::Deny, "state:x", 5)];
        assert!(!allows(&grants, "x", 4));
        assert!(allows(&grants, "x", 5));
        assert!(!allows(&grants, "x", 10));
    }
}
