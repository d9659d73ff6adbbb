//! Topics: what one service publishes and others take, in one order, at least once.
//!
//! A [`topic::Topic`] is a twin of its own kind. It keeps messages in pages, one each, numbers them in the order of its
//! turns, and remembers for each group of consumers what is handed out and what comes again. Whoever hands messages over
//! (`server`) leases some, reads them, and settles each.

pub mod topic;

pub use topic::{Append, Group, Lease, Leased, Outcome, Read, Renew, Seek, Settle, Settled, Stored, Topic, Trim};
