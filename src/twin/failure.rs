//! How a call can end other than with its reply; every variant says what is certain.

use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, Serialize};

use super::Rejection;
use crate::model::{Outcome, Sealed, Step, Timestamp};

/// Why a call has no reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Failure {
    /// The twin refused it.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// A bounded queue is full; try again later.
    #[error("{what} is full; try again in a moment")]
    Overloaded {
        /// Which bound.
        what: Cow<'static, str>,
    },
    /// The deadline passed before its turn.
    #[error("the deadline passed before the turn came")]
    Expired,
    /// The twin it asks waits, directly or not, for this very answer.
    #[error("the ask would wait for itself: {}", Steps(.path))]
    Cycle {
        /// The pending asks, outermost first, the repeated twin last.
        path: Vec<Step>,
    },
    /// The twin cannot be activated at present; it is tried again at `until`.
    #[error("the twin could not be activated, and is tried again at {until}: {cause}")]
    Backoff {
        /// When the next attempt is made.
        until: Timestamp,
        /// Why the last one failed.
        cause: Arc<str>,
    },
    /// The turn panicked; its activation was dropped and nothing of the turn was kept.
    #[error("the turn panicked: {message}")]
    Panicked {
        /// The panic's message.
        message: Arc<str>,
    },
    /// The commit that covered the turn did not end well.
    #[error("the commit did not take effect for certain: {cause}")]
    Lost {
        /// What is known of it.
        outcome: Outcome,
        /// Why.
        cause: Arc<str>,
    },
    /// A repeat of a request that was done, whose reply was too large to keep.
    #[error("done before, at revision {revision}")]
    AlreadyDone {
        /// The revision the request made.
        revision: u64,
    },
    /// The kind keeps no idempotency keys.
    #[error("kind '{kind}' is volatile and keeps no idempotency keys")]
    Keyless {
        /// The kind.
        kind: Cow<'static, str>,
    },
    /// No such kind, or message of it, is registered here.
    #[error("'{name}' is not registered with this runtime")]
    Unregistered {
        /// The kind or message.
        name: Arc<str>,
    },
    /// The runtime is draining or has stopped.
    #[error("the runtime is stopping")]
    Stopping,
}

impl Failure {
    /// What is certain about the effect.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Lost { outcome, .. } => *outcome,
            Self::Rejected(_)
            | Self::Overloaded { .. }
            | Self::Expired
            | Self::Cycle { .. }
            | Self::Backoff { .. }
            | Self::Panicked { .. }
            | Self::AlreadyDone { .. }
            | Self::Keyless { .. }
            | Self::Unregistered { .. }
            | Self::Stopping => Outcome::NotApplied,
        }
    }
}

impl From<&Sealed> for Option<Failure> {
    fn from(sealed: &Sealed) -> Self {
        match sealed {
            Sealed::Durable => None,
            Sealed::Lost { outcome, cause } => Some(Failure::Lost { outcome: *outcome, cause: cause.clone() }),
        }
    }
}

struct Steps<'a>(&'a [Step]);

impl std::fmt::Display for Steps<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            write!(f, "{}{step}", if at == 0 { "" } else { " → " })?;
        }
        Ok(())
    }
}
