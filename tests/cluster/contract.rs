//! The contract of every store, and what only this one has.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use service_twin::{
    model::Timestamp,
    store::{
        Commit, Entry, Epoch, Error, Load, PageWrite, Prefix, Scan, Slot, Store, conformance,
        nats::{Holding, NatsStore, OpenError},
    },
};

use crate::{
    servers::Servers,
    world::{Node, address, block_on, keys_of, wait},
};

fn keeps_the_contract(servers: &Servers) {
    let made = AtomicU32::new(0);
    conformance::run(&|| {
        let prefix = format!("c{}", made.fetch_add(1, Ordering::Relaxed));
        Arc::new(NatsStore::open(servers.config(&prefix, "n")).unwrap())
    });
}

#[test]
fn nats_keeps_the_contract_on_one_server() {
    keeps_the_contract(&Servers::one());
}

#[test]
fn nats_keeps_the_contract_on_three_servers_over_mutual_tls() {
    keeps_the_contract(&Servers::three());
}

#[test]
fn a_node_with_other_constants_or_more_replicas_than_servers_is_refused() {
    let servers = Servers::one();
    let config = servers.config("tw", "a");
    drop(NatsStore::open(config.clone()).unwrap());
    let mut other = config.clone();
    other.streams = 4;
    match NatsStore::open(other) {
        Err(OpenError::Constants { what: "streams", found, ours }) => assert_eq!((&*found, &*ours), ("2", "4")),
        other => panic!("{other:?}"),
    }
    let mut more = config;
    (more.replicas, more.patience) = (3, std::time::Duration::from_secs(1));
    match NatsStore::open(more.clone()) {
        Err(OpenError::Replicas { asked: 3, .. }) => {}
        other => panic!("{other:?}"),
    }
    more.prefix = "other".into();
    match NatsStore::open(more) {
        Err(OpenError::Replicas { asked: 3, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn owners_are_told_claimed_and_released() {
    let servers = Servers::one();
    let (a, b) = (Node::open(servers.config("tw", "a")), Node::open(servers.config("tw", "b")));
    let mut news = b.store.watch_owners();
    let wanted: Vec<_> = (0..Slot::COUNT).step_by(41).map(|slot| (Slot(slot), None)).collect();
    let claimed = block_on(a.store.claim_many(&wanted));
    let mut claimed: Vec<(Slot, Epoch)> = claimed.into_iter().map(|(slot, epoch)| (slot, epoch.unwrap())).collect();
    claimed.sort_unstable();
    assert_eq!(claimed.len(), wanted.len());

    let mut owners = block_on(b.store.owners()).unwrap();
    owners.sort_unstable_by_key(|(slot, _)| *slot);
    let told: Vec<_> = owners.iter().map(|(slot, owned)| (*slot, owned.epoch)).collect();
    assert_eq!(told, claimed);
    assert!(owners.iter().all(|(_, owned)| owned.node == "a" && owned.state == Holding::Owned));
    let mut heard: Vec<_> = (0..claimed.len()).map(|_| news.blocking_recv().unwrap()).collect();
    heard.sort_unstable_by_key(|(slot, _)| *slot);
    assert_eq!(heard, owners);

    let (slot, epoch) = claimed[7];
    block_on(a.store.release(slot, epoch)).unwrap();
    let (of, owned) = news.blocking_recv().unwrap();
    assert_eq!((of, owned.state, &*owned.node), (slot, Holding::Released, "a"));
    assert_eq!(block_on(b.store.owner(slot)).unwrap(), Some(owned.clone()));
    assert_eq!(
        block_on(a.store.release(slot, epoch)),
        Err(Error::Fenced { ours: epoch, owner: owned.epoch }),
        "what was given up cannot be given up again"
    );
    let key = &keys_of(slot, 1)[0];
    let late = a.commit(a.core(key, epoch, 1, "late"));
    assert_eq!(late, Err(Error::Fenced { ours: epoch, owner: owned.epoch }));
    let next = wait(|done| b.store.claim(slot, Some(owned.epoch), done)).unwrap();
    let (of, owned) = news.blocking_recv().unwrap();
    assert_eq!((of, owned.epoch, owned.state, &*owned.node), (slot, next, Holding::Owned, "b"));
    assert_eq!(block_on(b.store.owner(Slot(1))).unwrap(), None, "never claimed");
}

#[test]
fn who_takes_a_slot_over_finds_its_wakes_and_terms() {
    let servers = Servers::one();
    let (a, b) = (Node::open(servers.config("tw", "a")), Node::open(servers.config("tw", "b")));
    let slot = Slot(77);
    let epoch = a.claim(slot);
    let keys = keys_of(slot, 3);
    for (n, key) in (1..).zip(&keys) {
        let terms = [format!("n={n}").into(), "all=1".into()].into_iter().collect();
        let wake_at = Some(Timestamp::from_unix_ms(n));
        a.commit(Commit { wake_at, terms, ..a.core(key, epoch, 1, "core") }).unwrap();
    }
    let wakes = |node: &Node| {
        let until = Timestamp::from_unix_ms(u64::MAX);
        let walked = wait(|done| node.store.scan(Scan::Wake { until, after: None, limit: 9 }, done)).unwrap();
        let key = |entry| match entry {
            Entry::Wake { address, sequence: 1, .. } => address.key.to_string(),
            other @ (Entry::Wake { .. } | Entry::Found { .. } | Entry::Item(_)) => panic!("{other:?}"),
        };
        walked.entries.into_iter().map(key).collect::<Vec<_>>()
    };
    let found = |node: &Node, term: &str| {
        let find = Scan::Find { kind: "thing".into(), terms: vec![term.into()], after: None, limit: 9 };
        wait(|done| node.store.scan(find, done)).unwrap().entries.len()
    };
    assert_eq!((wakes(&a), found(&a, "all=1")), (keys.clone(), 3));
    assert_eq!((wakes(&b), found(&b, "all=1")), (vec![], 0), "only the owner knows");
    let epoch = b.claim(slot);
    assert_eq!((wakes(&b), found(&b, "all=1"), found(&b, "n=2")), (keys.clone(), 3, 1));
    b.commit(b.core(&keys[1], epoch, 2, "core")).unwrap();
    assert_eq!(wakes(&b), [&*keys[0], &*keys[2]]);
}

#[test]
fn a_run_among_thousands_of_pages_is_read_in_order() {
    let servers = Servers::one();
    let a = Node::open(servers.config("tw", "a"));
    let epoch = a.claim(a.store.slot_of("k"));
    let name = |n: usize| format!("many/{n:05}");
    let write = |numbers: Vec<usize>, value: Option<&[u8]>| {
        let page = |n| PageWrite { name: name(n).into(), value: value.map(<[u8]>::to_vec) };
        let pages = numbers.into_iter().map(page).collect();
        a.commit(Commit { core: None, pages, ..a.core("k", epoch, 0, "") }).unwrap();
    };
    let all: Vec<usize> = (0..1500).collect();
    all.chunks(50).for_each(|part| write(part.to_vec(), Some(b"x")));
    (100..600).collect::<Vec<_>>().chunks(50).for_each(|part| write(part.to_vec(), None));
    let read = |prefix: &str, after: Option<usize>, limit| {
        let prefix = Some(Prefix { prefix: prefix.into(), after: after.map(|n| name(n).into()), limit });
        let load = Load { address: address("k"), core: false, pages: Vec::new(), prefix, under: Some(epoch) };
        let pages = wait(|done| a.store.load(load, done)).unwrap().pages;
        pages.into_iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>()
    };
    let names = |numbers: &mut dyn Iterator<Item = usize>| numbers.map(name).collect::<Vec<_>>();
    assert_eq!(read("many/", None, 5), names(&mut (0..5)));
    assert_eq!(read("", Some(97), 4), names(&mut [98, 99, 600, 601].into_iter()));
    assert_eq!(read("many/0", Some(99), 2000), names(&mut (600..1500)));
}
