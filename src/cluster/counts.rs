//! What a node counts of its part in the cluster.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::metrics::{Sizes, Spread};

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Slots claimed.
    pub claims_won: u64,
    /// Claims that another came before.
    pub claims_lost: u64,
    /// Claims without a clear answer, which are tried again.
    pub claims_retried: u64,
    /// Slots handed over to another node.
    pub handed_over: u64,
    /// Calls sent to other nodes.
    pub forwarded: u64,
    /// Calls of other nodes that were taken.
    pub served: u64,
    /// Calls of other nodes that were sent on: the slot is not here.
    pub sent_on: u64,
    /// Calls to other nodes of which nobody knows what became.
    pub lost: u64,
    /// Calls whose deadline passed before an owner took them.
    pub expired: u64,
    /// Messages of telemetry among those that reached no owner, or may not have; nobody waits for their answer.
    pub telemetry_lost: u64,
    /// How long calls to other nodes took, in microseconds, waiting for an owner included.
    pub took_us: Sizes,
}

/// The same while it is counted.
#[derive(Debug, Default)]
pub(super) struct Counting {
    pub(super) claims_won: Count,
    pub(super) claims_lost: Count,
    pub(super) claims_retried: Count,
    pub(super) handed_over: Count,
    pub(super) forwarded: Count,
    pub(super) served: Count,
    pub(super) sent_on: Count,
    pub(super) lost: Count,
    pub(super) expired: Count,
    pub(super) took_us: Spread,
}

/// One number.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn more(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counting {
    pub(super) fn read(&self) -> Counts {
        Counts {
            claims_won: self.claims_won.read(),
            claims_lost: self.claims_lost.read(),
            claims_retried: self.claims_retried.read(),
            handed_over: self.handed_over.read(),
            forwarded: self.forwarded.read(),
            served: self.served.read(),
            sent_on: self.sent_on.read(),
            lost: self.lost.read(),
            expired: self.expired.read(),
            telemetry_lost: 0,
            took_us: self.took_us.read(),
        }
    }
}
