//! Why a twin refuses a message, in terms its caller can act on.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;

/// A twin's refusal. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejection {
    /// The message asks for something the twin does not have.
    #[error("{what} not found")]
    NotFound {
        /// What is missing.
        what: Cow<'static, str>,
    },
    /// The message is malformed or contradicts a schema.
    #[error("{detail}")]
    Invalid {
        /// What is wrong and what would be right.
        detail: Cow<'static, str>,
    },
    /// `If-Match` (or another condition) does not hold.
    #[error("precondition failed: expected revision {expected}, found {found}")]
    Precondition {
        /// What the caller expected.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// The message contradicts the twin's present state.
    #[error("{detail}")]
    Conflict {
        /// With what.
        detail: Cow<'static, str>,
    },
    /// A bound would be crossed.
    #[error("limit '{limit}' is {max}, this would make {actual}")]
    Limit {
        /// Name of the bound.
        limit: Cow<'static, str>,
        /// The bound.
        max: u64,
        /// What the message would make it.
        actual: u64,
    },
    /// The caller has no right to this.
    #[error("{rule}")]
    Denied {
        /// The deciding rule.
        rule: Cow<'static, str>,
    },
    /// What is asked for existed and is no longer kept.
    #[error(
        "that part of the history is no longer kept: the oldest kept revision is {oldest_revision}, of {oldest_at}"
    )]
    Gone {
        /// Oldest revision still readable.
        oldest_revision: u64,
        /// Its time.
        oldest_at: Timestamp,
    },
    /// The twin was removed; its revision goes on growing if it is created again.
    #[error("the twin was removed at revision {revision}")]
    Removed {
        /// The revision of the removal.
        revision: u64,
    },
    /// The idempotency key was used with another request.
    #[error("the idempotency key was used with another request")]
    KeyReused,
    /// The idempotency key is not later than the newest one already forgotten.
    #[error(
        "the idempotency key was made at {made_at}, and keys made up to {forgotten_until} are forgotten: whether its request was applied cannot be told"
    )]
    KeyTooOld {
        /// The key's time.
        made_at: Timestamp,
        /// Keys up to this time may have been forgotten.
        forgotten_until: Timestamp,
    },
    /// More within a second than is allowed.
    #[error("limit '{limit}' is {per_s} a second; wait a second, or ask for a higher one")]
    Throttled {
        /// Name of the bound.
        limit: Cow<'static, str>,
        /// The bound.
        per_s: u32,
    },
    /// The kind, message or part does not exist here.
    #[error("{what} is not supported")]
    Unsupported {
        /// What is not understood.
        what: Cow<'static, str>,
    },
}

impl Rejection {
    /// The message is malformed.
    pub fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid { detail: detail.into() }
    }

    /// Something is missing.
    pub fn not_found(what: impl Into<Cow<'static, str>>) -> Self {
        Self::NotFound { what: what.into() }
    }

    /// Refuses what would cross a bound.
    pub fn within(limit: impl Into<Cow<'static, str>>, max: usize, actual: usize) -> Result<(), Self> {
        let wide = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        if actual <= max {
            Ok(())
        } else {
            Err(Self::Limit { limit: limit.into(), max: wide(max), actual: wide(actual) })
        }
    }

    /// The state contradicts the message.
    pub fn conflict(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::Conflict { detail: detail.into() }
    }
}
