//! The contract of [`Store`] as a program: [`run`] it against every store.
//!
//! ```no_run
//! use std::sync::Arc;
//! use service_twin::store::{conformance, memory::MemoryStore};
//!
//! conformance::run(&|| Arc::new(MemoryStore::new()));
//! ```
//!
//! A store is asked for empty, several times. Durability is not looked at: a store that promises it shows that with
//! tests that kill its process.

mod commits;
mod walks;
mod whole;

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use compact_str::CompactString;
use parking_lot::Mutex;

use super::{
    Address, Commit, Committed, Done, Ended, Entry, Epoch, Error, Load, Loaded, PageWrite, Scan, SharedTerms, Slot,
    Store, Walked,
};
use crate::model::{Key, Rider, Sealed, Timestamp};

/// How long an answer may take before the store counts as hung.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the whole suite; `make` gives a new, empty store each time.
///
/// # Panics
/// At the first promise that is not kept.
pub fn run(make: &dyn Fn() -> Arc<dyn Store>) {
    let checks: &[fn(&World)] = &[
        commits::an_epoch_only_grows_and_is_taken_from_the_one_expected,
        commits::what_was_committed_is_read_back,
        commits::a_load_under_another_epoch_than_the_one_in_force_is_refused,
        commits::a_stale_epoch_is_fenced_and_writes_nothing,
        commits::a_sequence_that_does_not_follow_is_refused_and_writes_nothing,
        commits::pages_alone_advance_nothing,
        commits::the_bounds_are_kept_to_the_byte,
        commits::riders_hear_the_outcome_before_the_submitter,
        commits::every_commit_of_many_threads_ends_once_and_in_its_chain,
        walks::pages_of_one_twin_are_read_in_name_order_and_apart_from_others,
        walks::the_wake_index_holds_the_last_word_of_every_twin_in_time_order,
        walks::twins_are_found_by_all_of_their_present_terms,
        walks::a_search_goes_on_where_its_page_ended,
        whole::a_blob_is_read_back_whole_or_not_at_all,
        whole::a_sweep_leaves_what_it_is_told_to_keep,
        whole::a_closed_store_has_ended_what_it_took_and_takes_no_more,
    ];
    for check in checks {
        check(&World::new(make()));
    }
    whole::an_export_put_into_another_store_is_the_same_store(&World::new(make()), &World::new(make()));
}

/// A store whose slots are claimed when they are first needed, and somebody who listens.
pub(super) struct World {
    store: Arc<dyn Store>,
    epochs: Arc<Mutex<HashMap<Slot, Epoch>>>,
    to: Arc<Ears>,
    ended: Receiver<Ended>,
}

struct Ears(Mutex<Sender<Ended>>);

impl Committed for Ears {
    fn ended(&self, commits: Vec<Ended>) {
        let sender = self.0.lock();
        for ended in commits {
            sender.send(ended).expect("the suite listens until its store is gone");
        }
    }
}

/// Keeps what it hears.
#[derive(Default)]
struct Keeper(Mutex<Vec<Sealed>>);

impl Rider for Keeper {
    fn release(&self, sealed: &Sealed) {
        self.0.lock().push(sealed.clone());
    }
}

/// Waits for a completion.
fn wait<T: Send + 'static>(call: impl FnOnce(Done<T>)) -> Result<T, Error> {
    let (send, answer) = channel();
    call(Box::new(move |result| drop(send.send(result))));
    answer.recv_timeout(PATIENCE).expect("the store answers in time")
}

fn done<T: Debug>(result: Result<T, Error>) -> T {
    result.expect("a sound store does as it is asked")
}

fn address(key: &str) -> Arc<Address> {
    Arc::new(Address { kind: "thing".into(), key: Key::parse(key).expect("the suite's keys are keys") })
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(ms)
}

fn page(name: &str, value: Option<&[u8]>) -> PageWrite {
    PageWrite { name: name.into(), value: value.map(<[u8]>::to_vec) }
}

fn terms(terms: &[&str]) -> SharedTerms {
    terms.iter().map(|term| CompactString::new(term)).collect()
}

impl World {
    fn new(store: Arc<dyn Store>) -> Self {
        let (send, ended) = channel();
        Self { store, epochs: Arc::default(), to: Arc::new(Ears(Mutex::new(send))), ended }
    }

    /// The same store, heard by somebody else.
    fn listening(world: &Self) -> Self {
        let (send, ended) = channel();
        let (store, epochs) = (world.store.clone(), world.epochs.clone());
        Self { store, epochs, to: Arc::new(Ears(Mutex::new(send))), ended }
    }

    /// Whether ids are spread over slots, as in a store that many nodes share.
    fn is_shared(&self) -> bool {
        ["a", "b", "c"].iter().any(|key| self.slot(key) != Slot::default())
    }

    fn slot(&self, key: &str) -> Slot {
        self.store.slot_of(key)
    }

    /// The epoch under which this world owns a key's slot.
    fn epoch(&self, key: &str) -> Epoch {
        let slot = self.slot(key);
        *self.epochs.lock().entry(slot).or_insert_with(|| done(wait(|done| self.store.claim(slot, None, done))))
    }

    /// Claims a key's slot anew, without commits under the new epoch.
    fn claim_aside(&self, key: &str) -> Epoch {
        done(wait(|done| self.store.claim(self.slot(key), None, done)))
    }

    /// A commit of a core alone.
    fn core(&self, key: &str, sequence: u64, core: &[u8]) -> Commit {
        Commit {
            address: address(key),
            slot: self.slot(key),
            epoch: self.epoch(key),
            sequence,
            core: Some(core.to_vec()),
            pages: Vec::new(),
            wake_at: None,
            terms: SharedTerms::default(),
            riders: Vec::new(),
            token: sequence,
            to: self.to.clone(),
        }
    }

    /// A commit of pages alone.
    fn pages(&self, key: &str, sequence: u64, pages: Vec<PageWrite>) -> Commit {
        Commit { core: None, pages, ..self.core(key, sequence, b"") }
    }

    fn commit(&self, commit: Commit) -> Result<(), Error> {
        let token = commit.token;
        self.store.commit(commit).expect("an idle store has room");
        let ended = self.ended.recv_timeout(PATIENCE).expect("a commit that was taken ends");
        assert_eq!(ended.token, token, "the submitter's own number comes back");
        ended.result
    }

    fn load(&self, load: Load) -> Loaded {
        done(wait(|done| self.store.load(load, done)))
    }

    fn read_core(&self, key: &str) -> Option<Vec<u8>> {
        self.load(Load { address: address(key), core: true, pages: Vec::new(), prefix: None, under: None }).core
    }

    fn read_pages(&self, key: &str, names: &[&str]) -> Vec<(CompactString, Vec<u8>)> {
        let pages = names.iter().map(|name| CompactString::new(name)).collect();
        self.load(Load { address: address(key), core: false, pages, prefix: None, under: None }).pages
    }

    fn scan(&self, scan: Scan) -> Walked {
        done(wait(|done| self.store.scan(scan, done)))
    }

    fn wakes(&self, until: u64) -> Vec<(u64, String, u64)> {
        let walked = self.scan(Scan::Wake { until: at(until), after: None, limit: 1000 });
        assert!(!walked.more);
        walked.entries.into_iter().map(wake).collect()
    }

    fn found(&self, kind: &str, wanted: &[&str]) -> Vec<String> {
        let terms = wanted.iter().map(|term| CompactString::new(term)).collect();
        let walked = self.scan(Scan::Find { kind: kind.into(), terms, after: None, limit: 1000 });
        assert!(!walked.more);
        walked.entries.into_iter().map(|entry| found(entry).0).collect()
    }
}

fn wake(entry: Entry) -> (u64, String, u64) {
    match entry {
        Entry::Wake { at, address, sequence } => (at.unix_ms(), address.key.to_string(), sequence),
        other @ (Entry::Found { .. } | Entry::Item(_)) => panic!("{other:?} is no wake entry"),
    }
}

fn found(entry: Entry) -> (String, Vec<CompactString>) {
    match entry {
        Entry::Found { key, terms } => (key.to_string(), terms),
        other @ (Entry::Wake { .. } | Entry::Item(_)) => panic!("{other:?} was not searched for"),
    }
}
