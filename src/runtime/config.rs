//! The runtime's own bounds and intervals.

use std::{sync::Arc, time::Duration};

/// Bounds and intervals of a runtime; the defaults suit a node of a few cores.
#[derive(Clone)]
pub struct Config {
    /// Threads that host twins; 0 means one per core.
    pub arbiters: usize,
    /// Shards per arbiter and kind.
    pub shards_per_arbiter: usize,
    /// Messages that may wait in one lane of one shard.
    pub inbox_items_max: usize,
    /// Bytes that may wait in one shard.
    pub inbox_bytes_max: usize,
    /// After how long without a message a twin leaves memory.
    pub idle_after: Duration,
    /// Resident bytes of all twins of one kind above which idle ones leave early.
    pub resident_bytes_max: usize,
    /// Bytes of the pages that messages of one twin named and that are kept while it is in memory.
    pub page_cache_bytes_max: usize,
    /// How often observed pages of a busy twin are saved; jittered by a quarter.
    pub save_every: Duration,
    /// What all observed pages may write, in KiB per second.
    pub save_kib_per_s: u32,
    /// First wait after a failed activation; doubles up to a minute.
    pub backoff_min: Duration,
    /// Events kept for watchers that resume.
    pub events_kept: usize,
    /// Whether turns may run on their caller's thread.
    pub door: Door,
}

/// Whether turns may run on their caller's thread.
#[derive(Clone, Default)]
pub enum Door {
    /// Whenever the shard is free.
    #[default]
    Open,
    /// Never: every message takes the inbox.
    Closed,
    /// As a simulation says, each time.
    Scripted(Arc<dyn Fn() -> bool + Send + Sync>),
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "Open",
            Self::Closed => "Closed",
            Self::Scripted(_) => "Scripted",
        })
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("arbiters", &self.arbiters)
            .field("idle_after", &self.idle_after)
            .finish_non_exhaustive()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            arbiters: 0,
            shards_per_arbiter: 16,
            inbox_items_max: 16_384,
            inbox_bytes_max: 8 * 1024 * 1024,
            idle_after: Duration::from_secs(600),
            resident_bytes_max: 2 * 1024 * 1024 * 1024,
            page_cache_bytes_max: 64 * 1024,
            save_every: Duration::from_secs(10),
            save_kib_per_s: 8 * 1024,
            backoff_min: Duration::from_millis(100),
            events_kept: 4096,
            door: Door::Open,
        }
    }
}
