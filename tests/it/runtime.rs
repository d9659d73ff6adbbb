//! The runtime through its public door.

use std::{sync::Arc, time::Duration};

use service_twin::{
    model::{Key, Outcome, Principal, RequestKey, Timestamp},
    runtime::{Config, Door, Runtime},
    store::{Done, Layer, Store, memory::MemoryStore},
    twin::{Failure, Rejection, journal::Moment},
};

use crate::kinds::{
    Add, AddAndTell, Answered, Append, AskRound, Bump, Heard, Ledger, Note, Notes, Pad, Read, Tally, Tell, WakeMeAt,
};

const LONG: Duration = Duration::from_secs(20);

fn start(store: &Arc<dyn Store>, door: Door) -> Runtime {
    let config = Config { arbiters: 2, door, ..Config::default() };
    Runtime::builder()
        .config(config)
        .store(Arc::clone(store))
        .kind::<Tally>()
        .kind::<Ledger>()
        .wire::<Tell>()
        .asks::<AskRound, Answered>()
        .start()
        .expect("a runtime over a store starts")
}

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

/// Both ways into a shard.
fn doors() -> [Door; 2] {
    [Door::Open, Door::Closed]
}

#[tokio::test]
async fn a_volatile_twin_counts_from_its_first_message() {
    for door in doors() {
        let runtime = start(&memory(), door);
        assert_eq!(runtime.twin("a").ask(Bump(2)).await, Ok(2));
        assert_eq!(runtime.twin("a").ask(Bump(3)).await, Ok(5));
        assert_eq!(runtime.twin("b").ask(Bump(0)).await, Ok(0));
        runtime.twin("a").tell(Bump(1)).unwrap();
        assert_eq!(runtime.twin("a").ask(Bump(0)).await, Ok(6), "one caller's messages keep their order");
        assert_eq!(runtime.drain(LONG).await.unsettled, 0);
        assert_eq!(runtime.twin("a").ask(Bump(0)).await, Err(Failure::Stopping));
    }
}

#[tokio::test]
async fn a_durable_twin_is_the_same_after_a_restart() {
    for door in doors() {
        let store = memory();
        let runtime = start(&store, door.clone());
        assert_eq!(runtime.twin("a").ask(Add(2)).await, Ok(2));
        assert_eq!(runtime.twin("a").ask(Add(3)).await, Ok(5));
        assert_eq!(runtime.drain(LONG).await.unsettled, 0);
        let runtime = start(&store, door);
        assert_eq!(runtime.twin("a").ask(Read).await, Ok((5, 2)));
    }
}

#[tokio::test]
async fn a_rejection_changes_nothing_and_says_why() {
    let runtime = start(&memory(), Door::Open);
    let refused = runtime.twin("a").ask(Add(2_000_000)).await.unwrap_err();
    assert!(matches!(&refused, Failure::Rejected(Rejection::Limit { max: 1_000_000, .. })), "{refused}");
    assert_eq!(refused.outcome(), Outcome::NotApplied);
    assert_eq!(runtime.twin("a").ask(Read).await, Ok((0, 0)));
    let refused = runtime.twin("").ask(Read).await.unwrap_err();
    assert!(matches!(refused, Failure::Rejected(Rejection::Invalid { .. })));
}

#[tokio::test]
async fn a_panic_ends_one_activation_and_nothing_else() {
    for door in doors() {
        let runtime = start(&memory(), door);
        runtime.twin("a").ask(Add(1)).await.unwrap();
        runtime.twin("b").ask(Add(1)).await.unwrap();
        let failure = runtime.twin("a").ask(Add(666)).await.unwrap_err();
        assert!(matches!(&failure, Failure::Panicked { message } if message.contains("beast")), "{failure}");
        assert_eq!(runtime.twin("a").ask(Read).await, Ok((1, 1)), "what was durable is there again");
        assert_eq!(runtime.twin("b").ask(Read).await, Ok((1, 1)));
    }
}

#[tokio::test]
async fn a_repeat_under_the_same_key_gets_the_same_answer_and_changes_nothing() {
    for door in doors() {
        let store = memory();
        let runtime = start(&store, door.clone());
        let key = RequestKey::new("r1", runtime.now());
        assert_eq!(runtime.twin("a").ask(Add(2)).key(key.clone()).await, Ok(2));
        assert_eq!(runtime.twin("a").ask(Add(2)).key(key.clone()).await, Ok(2));
        let other = runtime.twin("a").ask(Add(3)).key(key.clone()).await;
        assert_eq!(other, Err(Rejection::KeyReused.into()));
        runtime.drain(LONG).await;
        let runtime = start(&store, door);
        assert_eq!(runtime.twin("a").ask(Add(2)).key(key).await, Ok(2), "the ring is part of the record");
        assert_eq!(runtime.twin("a").ask(Read).await, Ok((2, 1)));
    }
}

#[tokio::test]
async fn a_key_from_before_the_forgotten_ones_is_refused() {
    let runtime = start(&memory(), Door::Open);
    let at = |n: u64| Timestamp::from_unix_ms(1_000_000 + n);
    for n in 0..200 {
        let key = RequestKey::new(&format!("r{n}"), at(n));
        runtime.twin("a").ask(Add(1)).key(key).await.unwrap();
    }
    let old = runtime.twin("a").ask(Add(1)).key(RequestKey::new("r0", at(0))).await;
    assert!(matches!(old, Err(Failure::Rejected(Rejection::KeyTooOld { .. }))), "{old:?}");
    assert_eq!(runtime.twin("a").ask(Read).await, Ok((200, 200)));
}

#[tokio::test]
async fn what_a_twin_tells_another_arrives_once() {
    let runtime = start(&memory(), Door::Open);
    let to = Key::parse("b").unwrap();
    for n in 1..=20 {
        assert_eq!(runtime.twin("a").ask(AddAndTell(1, to.clone())).await, Ok(n));
    }
    let (told, _, _) = until(&runtime, |told| told.len() == 20).await;
    assert_eq!(told, (1..=20).map(|n| ("a".to_owned(), n)).collect::<Vec<_>>());
}

/// Asks "b" what it heard until it is so; the test's own timeout bounds it.
async fn until(runtime: &Runtime, enough: impl Fn(&[(String, u64)]) -> bool) -> (Vec<(String, u64)>, u32, usize) {
    loop {
        let heard = runtime.twin("b").ask(Heard).await.expect("a read is answered");
        if enough(&heard.0) {
            return heard;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_ask_that_would_wait_for_itself_is_refused_with_its_path() {
    let runtime = start(&memory(), Door::Open);
    let keys: Vec<_> = ["b", "c", "b"].into_iter().map(|key| Key::parse(key).unwrap()).collect();
    runtime.twin("a").ask(AskRound(keys)).await.unwrap();
    loop {
        let (told, _, _) = runtime.twin("c").ask(Heard).await.unwrap();
        if let Some((text, _)) = told.first() {
            assert!(text.contains("ledger:a → ledger:b → ledger:c → ledger:b"), "{text}");
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_reminder_fires_although_nobody_calls() {
    let runtime = start(&memory(), Door::Open);
    let at = runtime.now().after(Duration::from_millis(30));
    runtime.twin("b").ask(WakeMeAt(at)).await.unwrap();
    loop {
        let (_, woken, _) = runtime.twin("b").ask(Heard).await.unwrap();
        if woken == 1 {
            assert!(runtime.now() >= at, "never early");
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_message_that_would_pass_the_records_limit_is_refused_and_its_neighbours_are_not() {
    let runtime = start(&memory(), Door::Open);
    let asks: Vec<_> = (0..20).map(|_| async { runtime.twin("a").ask(Pad(3000)).await }).collect();
    let mut done = 0;
    for answer in futures_util::future::join_all(asks).await {
        match answer {
            Ok(_) => done += 1,
            Err(failure) => assert!(matches!(failure, Failure::Rejected(Rejection::Limit { .. })), "{failure}"),
        }
    }
    assert!((5..=10).contains(&done), "{done} of 3,000 bytes fit 32 KiB");
    assert_eq!(runtime.twin("a").ask(Heard).await.unwrap().2, done * 3000);
    runtime.twin("a").ask(Add(1)).await.unwrap();
}

#[tokio::test]
async fn an_expired_message_has_no_turn() {
    let runtime = start(&memory(), Door::Open);
    let failure = runtime.twin("a").ask(Add(1)).deadline(Duration::ZERO).await.unwrap_err();
    assert_eq!((&failure, failure.outcome()), (&Failure::Expired, Outcome::NotApplied));
    assert_eq!(runtime.twin("a").ask(Read).await, Ok((0, 0)));
}

#[tokio::test]
async fn twins_are_found_by_their_terms_without_being_activated() {
    let runtime = start(&memory(), Door::Open);
    for n in 0..10 {
        runtime.twin(&format!("t{n}")).ask(Add(n)).await.unwrap();
    }
    let (found, more) = runtime.find::<Ledger>(vec!["parity=odd".into()], None, 3).await.unwrap();
    assert_eq!(found.iter().map(|found| found.key.as_str()).collect::<Vec<_>>(), ["t1", "t3", "t5"]);
    assert!(more);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_on_four_threads_keep_their_own_order_on_one_hot_twin() {
    let runtime = start(&memory(), Door::Open);
    let callers = (0..4).map(|_| {
        let runtime = runtime.clone();
        tokio::spawn(async move {
            let mut last = 0;
            for n in 0..5_000 {
                if n % 7 == 0 {
                    runtime.twin("hot").tell(Bump(1)).unwrap();
                }
                let count = runtime.twin("hot").ask(Bump(1)).await.unwrap();
                assert!(count > last + u64::from(n % 7 == 0), "a told message has its turn before the next ask");
                last = count;
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    assert_eq!(runtime.twin("hot").ask(Bump(0)).await, Ok(4 * (5_000 + 715)));
}

#[tokio::test]
async fn keyed_requests_to_a_volatile_kind_are_refused() {
    let runtime = start(&memory(), Door::Open);
    let header = service_twin::model::Header::default()
        .with_request(RequestKey::new("r", runtime.now()))
        .with_principal(Principal::Host);
    let refused = runtime.twin("a").ask(Bump(1)).header(header).await;
    assert_eq!(refused, Err(Failure::Keyless { kind: "tally".into() }));
}

#[tokio::test]
async fn a_twin_reads_at_every_revision_as_it_was_then() {
    let runtime = start(&memory(), Door::Open);
    let mut then = Vec::new();
    for n in 1..=600_u64 {
        let count = runtime.twin("a").ask(Add(n % 13)).await.unwrap();
        then.push(count);
    }
    for revision in [1, 2, 59, 300, 599, 600] {
        let past = runtime.twin("a").at(Moment::Revision(revision));
        let index = usize::try_from(revision).unwrap() - 1;
        assert_eq!(past.ask(Read).await, Ok((then[index], revision)));
    }
    let newer = runtime.twin("a").at(Moment::Revision(601)).ask(Read).await;
    assert!(matches!(newer, Err(Failure::Rejected(_))), "{newer:?}");
    let (entries, more) = runtime.twin("a").journal::<Ledger>(590, 5).await.unwrap();
    assert_eq!(entries.iter().map(|entry| entry.revision).collect::<Vec<_>>(), [591, 592, 593, 594, 595]);
    assert!(more);
    let (all, more) = runtime.twin("a").journal::<Ledger>(0, 1000).await.unwrap();
    assert_eq!((all.len(), more), (600, false));
}

#[tokio::test]
async fn a_turn_reads_the_pages_it_named_with_what_is_staged_over_them() {
    for door in doors() {
        let store = memory();
        let runtime = start(&store, door.clone());
        let appends: Vec<_> = (0..50)
            .map(|n| {
                let runtime = runtime.clone();
                async move { runtime.twin("a").ask(Append("log".to_owned(), format!("{},", n % 10))).await }
            })
            .collect();
        for answer in futures_util::future::join_all(appends).await {
            answer.unwrap();
        }
        runtime.twin("a").ask(Note("other".to_owned(), "x".to_owned())).await.unwrap();
        assert_eq!(runtime.twin("a").ask(Notes).await.unwrap(), ["note/log", "note/other"]);
        runtime.twin("a").ask(Note("other".to_owned(), String::new())).await.unwrap();
        runtime.drain(LONG).await;
        let runtime = start(&store, door);
        assert_eq!(runtime.twin("a").ask(Notes).await.unwrap(), ["note/log"]);
        let log = runtime.twin("a").ask(Append("log".to_owned(), String::new())).await.unwrap();
        assert_eq!(log.len(), 100, "no append was lost: {log}");
    }
}

/// A store whose barriers end when they are told to.
struct Unsure {
    below: MemoryStore,
    barriers: parking_lot::Mutex<Vec<Done<()>>>,
}

impl Layer for Unsure {
    fn below(&self) -> &dyn Store {
        &self.below
    }

    fn barrier(&self, done: Done<()>) {
        self.barriers.lock().push(done);
    }
}

#[tokio::test]
async fn the_past_is_told_when_it_is_durable() {
    use futures_util::FutureExt as _;
    use service_twin::twin::service::{Service, message::Create};
    let store = Arc::new(Unsure { below: MemoryStore::new(), barriers: parking_lot::Mutex::default() });
    let at: Arc<dyn Store> = store.clone();
    let runtime = Runtime::builder().store(at).kind::<Service>().start().unwrap();
    let twin = runtime.twin("shop/orders");
    twin.ask(Create::default()).await.unwrap();
    let mut read = std::pin::pin!(async { twin.events::<Service>(0).await.unwrap().newest });
    assert_eq!((&mut read).now_or_never(), None, "a crash could take back what was read");
    let barriers = std::mem::take(&mut *store.barriers.lock());
    assert_eq!(barriers.len(), 1);
    for done in barriers {
        done(Ok(()));
    }
    assert_eq!(read.await, 1);
    let mut read = std::pin::pin!(twin.journal::<Service>(0, 10));
    assert!((&mut read).now_or_never().is_none());
    let failed = Err(service_twin::store::Error::Unknown("the disk failed".into()));
    let barriers = std::mem::take(&mut *store.barriers.lock());
    for done in barriers {
        done(failed.clone());
    }
    assert!(matches!(read.await, Err(Failure::Lost { .. })));
}

#[tokio::test]
async fn a_removal_that_a_crash_cut_off_is_ended_although_nobody_calls() {
    use service_twin::{
        store::{
            Address, Load, Prefix,
            memory::{Fault, Faults},
        },
        twin::service::{
            Json, Service,
            message::{Remove, SetAttributes},
        },
    };
    let faults = Arc::new(Faults::none());
    let store = Arc::new(MemoryStore::with_faults(Arc::clone(&faults)));
    let start = || {
        let store: Arc<dyn Store> = store.clone();
        Runtime::builder().store(store).kind::<Service>().start().unwrap()
    };
    let address = Arc::new(Address { kind: "service".into(), key: Key::parse("shop/orders").unwrap() });
    let left = || {
        let (tell, told) = std::sync::mpsc::channel();
        let prefix = Some(Prefix { prefix: "journal/".into(), after: None, limit: 1000 });
        let load = Load { address: Arc::clone(&address), core: false, pages: Vec::new(), prefix, under: None };
        store.load(load, Box::new(move |loaded| tell.send(loaded.unwrap()).unwrap()));
        told.recv().unwrap().pages.len()
    };
    let runtime = start();
    let twin = runtime.twin("shop/orders");
    for n in 0..100 {
        let patch = Json::parse(&format!(r#"{{"text":"{}"}}"#, format!("{n:04}").repeat(400))).unwrap();
        twin.ask(SetAttributes { patch, if_match: None }).await.unwrap();
    }
    let all = left();
    assert!(all > 64, "more than one commit deletes");
    faults.at_next_commit(None);
    faults.at_next_commit(Some(Fault::Held));
    twin.ask(Remove::default()).await.unwrap();
    while store.held() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(left() > 1, "the process dies between the commits that delete");
    drop(runtime);
    let runtime = start();
    let swept = async {
        while left() > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, swept).await.expect("the rest is deleted");
    drop(runtime);
}

#[tokio::test]
async fn a_removed_twins_journal_is_deleted_from_the_store() {
    use service_twin::{
        store::{
            Address, Load, Loaded, Prefix,
            sled::{Options, SledStore},
        },
        twin::service::{
            Json, Service,
            message::{Create, GetAttributes, Remove, SetAttributes},
        },
    };
    const TWIN: &str = "shop/orders";
    let folder = tempfile::tempdir().unwrap();
    let on_disk = || -> Arc<dyn Store> { Arc::new(SledStore::open(folder.path(), Options::default()).unwrap()) };
    for is_on_disk in [false, true] {
        let store = if is_on_disk { on_disk() } else { memory() };
        let address = Arc::new(Address { kind: "service".into(), key: Key::parse(TWIN).unwrap() });
        let pages = async |store: &Arc<dyn Store>| -> Loaded {
            let (tell, told) = tokio::sync::oneshot::channel();
            let prefix = Some(Prefix { prefix: "journal/".into(), after: None, limit: 1000 });
            let load = Load { address: Arc::clone(&address), core: false, pages: Vec::new(), prefix, under: None };
            store.load(load, Box::new(move |loaded| drop(tell.send(loaded))));
            told.await.unwrap().unwrap()
        };
        let runtime = Runtime::builder().store(Arc::clone(&store)).kind::<Service>().start().unwrap();
        let twin = runtime.twin(TWIN);
        for n in 0..100 {
            let patch = Json::parse(&format!(r#"{{"text":"{}"}}"#, format!("{n:04}").repeat(400))).unwrap();
            twin.ask(SetAttributes { patch, if_match: None }).await.unwrap();
        }
        assert!(pages(&store).await.pages.len() > 64, "more than one commit deletes");
        let removed = twin.ask(Remove::default()).await.unwrap().revision;
        twin.ask(Create::default()).await.unwrap();
        let past = |revision| runtime.twin(TWIN).at(Moment::Revision(revision)).ask(GetAttributes);
        assert!(matches!(past(1).await, Err(Failure::Rejected(Rejection::Gone { .. }))));
        assert_eq!(past(removed + 1).await.unwrap().attributes, Json::empty());
        // A drain waits for the commits that follow the removal's.
        assert_eq!(runtime.drain(LONG).await.unsettled, 0);
        // It closed the store.
        drop(runtime);
        let store = if is_on_disk {
            drop(store);
            on_disk()
        } else {
            store
        };
        let left: Vec<_> = pages(&store).await.pages.into_iter().map(|(name, _)| name).collect();
        assert_eq!(left, [format!("journal/b/{removed:016x}")]);
    }
}
