//! Pages that a kind names and writes, at their bounds and while some are staged.

use std::{future::IntoFuture, sync::Arc, time::Duration};

use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use service_twin::{
    model::{RequestKey, Timestamp, limits},
    runtime::{Config, Door, Runtime},
    store::{
        Store,
        memory::{Fault, Faults, LoadFault, MemoryStore},
    },
    twin::{
        Changes, Decide, Decision, Durable, Failure, Message, Needs, PageWrite, Rejection, Snapshot, Turn, Twin, Wire,
    },
};

/// A number and whatever pages it is told to write.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Shelf(u64);

impl Twin for Shelf {
    const KIND: &'static str = "shelf";
    type Persistence = Durable;
    type Change = u64;
    fn create(_: &str) -> Self {
        Self::default()
    }
    fn apply(&mut self, to: &u64, _: Timestamp) {
        self.0 = *to;
    }
}

impl Snapshot for Shelf {
    const SCHEMA: u16 = 1;
    const FIELDS: &'static str = "number:u64";
}

/// Makes the number this; changes nothing if it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Set(u64);

impl Message for Set {
    type Twin = Shelf;
    type Reply = u64;
}

impl Wire for Set {
    const NAME: &'static str = "set/1";
}

impl Decide<Set> for Shelf {
    fn decide(&self, Set(to): &Set, _: &Turn<'_>) -> Result<Decision<u64, u64>, Rejection> {
        let decision = Decision::new(self.0);
        Ok(if *to == self.0 { decision } else { decision.change(*to) })
    }
}

/// Writes pages, or deletes them.
struct Put(Vec<(String, Option<&'static [u8]>)>);

impl Message for Put {
    type Twin = Shelf;
    type Reply = ();
}

impl Decide<Put> for Shelf {
    fn decide(&self, Put(pages): &Put, _: &Turn<'_>) -> Result<Decision<u64, ()>, Rejection> {
        let write = |decision: Decision<u64, ()>, (name, value): &(String, Option<&[u8]>)| {
            decision.page(name, value.map(<[u8]>::to_vec))
        };
        Ok(pages.iter().fold(Decision::new(()), write))
    }
}

/// Names of the pages it needs.
struct Look(Needs);

impl Message for Look {
    type Twin = Shelf;
    type Reply = Vec<String>;
    fn needs(&self) -> Needs {
        self.0.clone()
    }
}

impl Decide<Look> for Shelf {
    fn decide(&self, _: &Look, turn: &Turn<'_>) -> Result<Decision<u64, Vec<String>>, Rejection> {
        Ok(Decision::new(turn.prefix("").into_iter().map(|(name, _)| name.to_owned()).collect()))
    }
}

fn start(store: &Arc<MemoryStore>, door: Door) -> Runtime {
    let config = Config { arbiters: 1, door, ..Config::default() };
    let runtime = Runtime::builder().config(config).store(store.clone()).kind::<Shelf>().wire::<Set>();
    runtime.start().expect("a runtime starts")
}

fn run(after: Option<&str>, limit: usize) -> Look {
    Look(Needs::Prefix { prefix: "p/".to_owned(), after: after.map(str::to_owned), limit })
}

#[tokio::test]
async fn a_keyed_request_that_changed_nothing_changes_nothing_when_it_comes_again() {
    for door in [Door::Open, Door::Closed] {
        let store = Arc::new(MemoryStore::new());
        let runtime = start(&store, door.clone());
        runtime.twin("a").ask(Set(1)).await.unwrap();
        let key = RequestKey::new("r1", runtime.now());
        assert_eq!(runtime.twin("a").ask(Set(1)).key(key.clone()).await, Ok(1), "it was so already");
        runtime.twin("a").ask(Set(2)).await.unwrap();
        assert_eq!(runtime.twin("a").ask(Set(1)).key(key.clone()).await, Ok(1), "the answer it had");
        runtime.drain(std::time::Duration::from_secs(20)).await;
        let runtime = start(&store, door);
        assert_eq!(runtime.twin("a").ask(Set(1)).key(key).await, Ok(1));
        assert_eq!(runtime.twin("a").ask(Set(2)).await, Ok(2), "nothing was set back");
    }
}

#[tokio::test]
async fn keys_from_far_ahead_are_refused_and_spoil_no_others() {
    let runtime = start(&Arc::new(MemoryStore::new()), Door::Open);
    let hour = std::time::Duration::from_secs(3600);
    for (n, made_at) in [Timestamp::MAX, runtime.now().after(25 * hour)].into_iter().cycle().take(300).enumerate() {
        let refused = runtime.twin("a").ask(Set(9)).key(RequestKey::new(&format!("far {n}"), made_at)).await;
        assert!(matches!(refused, Err(Failure::Rejected(Rejection::Invalid { .. }))), "{refused:?}");
    }
    let ahead = RequestKey::new("a little ahead", runtime.now().after(23 * hour));
    assert_eq!(runtime.twin("a").ask(Set(1)).key(ahead).await, Ok(0));
    assert_eq!(runtime.twin("a").ask(Set(2)).key(RequestKey::new("of now", runtime.now())).await, Ok(1));
}

#[tokio::test]
async fn a_page_that_is_the_runtimes_or_has_too_long_a_name_is_refused_and_its_twin_goes_on() {
    for door in [Door::Open, Door::Closed] {
        let runtime = start(&Arc::new(MemoryStore::new()), door);
        for name in ["ring", "journal/", "journal/c/0000000000000000/0000"] {
            let refused = runtime.twin("a").ask(Put(vec![(name.to_owned(), Some(b"mine"))])).await;
            assert!(matches!(refused, Err(Failure::Rejected(Rejection::Invalid { .. }))), "{name}: {refused:?}");
        }
        let long = "n".repeat(limits::PAGE_NAME_BYTES_MAX + 1);
        let refused = runtime.twin("a").ask(Put(vec![(long.clone(), Some(b"mine"))])).await;
        assert!(matches!(refused, Err(Failure::Rejected(Rejection::Limit { max: 512, .. }))), "{refused:?}");
        runtime
            .twin("a")
            .ask(Put(vec![(long[1..].to_owned(), Some(b"mine")), ("rings".to_owned(), None)]))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_message_that_names_more_pages_than_a_turn_may_read_is_refused() {
    for door in [Door::Open, Door::Closed] {
        let runtime = start(&Arc::new(MemoryStore::new()), door);
        let names = |count: usize| Look(Needs::Pages((0..count).map(|n| format!("p/{n}")).collect()));
        let refused = runtime.twin("a").ask(names(limits::NEEDS_KEYS_MAX + 1)).await;
        assert!(matches!(refused, Err(Failure::Rejected(Rejection::Limit { max: 16, actual: 17, .. }))), "{refused:?}");
        runtime.twin("a").ask(Put(vec![("p/15".to_owned(), Some(b"there"))])).await.unwrap();
        assert_eq!(runtime.twin("a").ask(names(limits::NEEDS_KEYS_MAX)).await.unwrap(), ["p/15"]);
    }
}

#[tokio::test]
async fn a_run_of_pages_is_whole_and_bounded_while_some_of_them_are_staged() {
    for (after, limit, expected) in [
        (None, 1, vec!["p/a"]),
        (None, 2, vec!["p/a", "p/c"]),
        (None, 3, vec!["p/a", "p/c", "p/d"]),
        (None, 9, vec!["p/a", "p/c", "p/d", "p/e"]),
        (Some("p/c"), 1, vec!["p/d"]),
        (Some("p/c"), 2, vec!["p/d", "p/e"]),
    ] {
        let faults = Arc::new(Faults::none());
        let store = Arc::new(MemoryStore::with_faults(faults.clone()));
        let runtime = start(&store, Door::Open);
        let there = ["p/a", "p/b", "p/d"].map(|name| (name.to_owned(), Some(&b"stored"[..])));
        runtime.twin("a").ask(Put(there.to_vec())).await.unwrap();
        faults.at_next_commit(Some(Fault::Held));
        let mut held = runtime.twin("a").ask(Set(1)).into_future();
        assert!((&mut held).now_or_never().is_none(), "its commit is held");
        while store.held() == 0 {
            tokio::task::yield_now().await;
        }
        let change = [("p/b", None), ("p/c", Some(&b"staged"[..])), ("p/e", Some(&b"staged"[..]))];
        let change = change.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let mut staged = runtime.twin("a").ask(Put(change)).into_future();
        assert!((&mut staged).now_or_never().is_none(), "it waits for that commit");
        let mut looked = runtime.twin("a").ask(run(after, limit)).into_future();
        assert!((&mut looked).now_or_never().is_none(), "so does what was read behind it");
        assert!(store.release(0, None));
        assert_eq!(looked.await.unwrap(), expected, "after {after:?}, at most {limit}");
        held.await.unwrap();
        staged.await.unwrap();
    }
}

#[tokio::test]
async fn pages_read_once_are_kept_and_show_what_turns_wrote_and_nothing_of_a_commit_that_failed() {
    for door in [Door::Open, Door::Closed] {
        let faults = Arc::new(Faults::none());
        let runtime = start(&Arc::new(MemoryStore::with_faults(faults.clone())), door);
        let put = |name: &str, value: Option<&'static [u8]>| runtime.twin("a").ask(Put(vec![(name.to_owned(), value)]));
        let look = || runtime.twin("a").ask(Look(Needs::Pages(["p/a", "p/b", "p/c"].map(str::to_owned).to_vec())));
        put("p/a", Some(b"stored")).await.unwrap();
        assert_eq!(look().await.unwrap(), ["p/a"]);
        // The next look that reads the store fails.
        faults.at_next_load(Some(LoadFault::Unavailable));
        assert_eq!(look().await.unwrap(), ["p/a"]);
        put("p/b", Some(b"written")).await.unwrap();
        put("p/a", None).await.unwrap();
        assert_eq!(look().await.unwrap(), ["p/b"]);
        let one = Look(Needs::Pages(vec!["p/c".to_owned()]));
        assert!(runtime.twin("a").ask(one).await.unwrap().is_empty(), "what is kept is not shown unless it is named");
        faults.at_next_commit(Some(Fault::Unavailable));
        put("p/c", Some(b"never")).await.unwrap_err();
        faults.heal();
        // Until the shard has heard of it, what comes behind shares its fate.
        let seen = loop {
            match look().await {
                Err(Failure::Lost { .. }) => tokio::task::yield_now().await,
                other => break other,
            }
        };
        assert_eq!(seen.unwrap(), ["p/b"], "read anew, by a new activation");
    }
}

/// A number that is only observed.
#[derive(Default, Serialize, Deserialize)]
struct Gauge {
    #[serde(skip)]
    seen: u8,
    #[serde(skip)]
    unsaved: bool,
}

impl Twin for Gauge {
    const KIND: &'static str = "gauge";
    const OBSERVED: Option<&'static str> = Some("seen/");
    type Persistence = Durable;
    type Change = ();
    fn create(_: &str) -> Self {
        Self::default()
    }
    fn apply(&mut self, (): &(), _: Timestamp) {}
    fn unsaved(&self) -> bool {
        self.unsaved
    }
    fn save(&mut self, _: Timestamp, _: usize) -> Vec<PageWrite> {
        self.unsaved = false;
        vec![PageWrite { name: "seen/it".into(), value: Some(vec![self.seen]) }]
    }
}

impl Snapshot for Gauge {
    const SCHEMA: u16 = 1;
    const FIELDS: &'static str = "";
}

/// Observes a number and answers the one that its page has.
struct Show(u8);

impl Message for Show {
    type Twin = Gauge;
    type Reply = Option<u8>;
    fn needs(&self) -> Needs {
        Needs::Pages(vec!["seen/it".to_owned()])
    }
}

impl Decide<Show> for Gauge {
    fn decide(&self, _: &Show, turn: &Turn<'_>) -> Result<Decision<(), Option<u8>>, Rejection> {
        Ok(Decision::new(turn.page("seen/it").map(|page| page[0])))
    }
    fn observe(&mut self, Show(seen): &Show, _: &Turn<'_>) -> Changes<()> {
        self.unsaved |= self.seen != *seen;
        self.seen = *seen;
        Changes::new()
    }
}

#[tokio::test]
async fn a_page_that_is_kept_shows_what_was_observed_and_saved_since() {
    let config = Config { arbiters: 1, save_every: Duration::from_millis(1), ..Config::default() };
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let runtime = Runtime::builder().config(config).store(store).kind::<Gauge>().start().unwrap();
    assert_eq!(runtime.twin("a").ask(Show(1)).await, Ok(None));
    for seen in [1, 2, 3] {
        let saved = async {
            while runtime.twin("a").ask(Show(seen)).await != Ok(Some(seen)) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), saved).await.expect("it is saved with a tick");
    }
}

#[tokio::test]
async fn more_pages_than_are_kept_are_read_again() {
    let faults = Arc::new(Faults::none());
    let store = Arc::new(MemoryStore::with_faults(faults.clone()));
    let config = Config { arbiters: 1, page_cache_bytes_max: 200, ..Config::default() };
    let runtime = Runtime::builder().config(config).store(store).kind::<Shelf>().start().unwrap();
    let names: Vec<String> = (0..4).map(|n| format!("p/{n}")).collect();
    let pages = names.iter().map(|name| (name.clone(), Some(&[7_u8; 40][..]))).collect();
    runtime.twin("a").ask(Put(pages)).await.unwrap();
    for _ in 0..3 {
        assert_eq!(runtime.twin("a").ask(Look(Needs::Pages(names.clone()))).await.unwrap(), names);
        let last = Look(Needs::Pages(vec![names[3].clone()]));
        assert_eq!(runtime.twin("a").ask(last).await.unwrap(), [names[3].clone()]);
    }
    faults.at_next_load(Some(LoadFault::Unavailable));
    runtime.twin("a").ask(Look(Needs::Pages(vec![names[3].clone()]))).await.expect("the last one read is kept");
    runtime.twin("a").ask(Look(Needs::Pages(vec![names[0].clone()]))).await.expect_err("the first one is not");
}
