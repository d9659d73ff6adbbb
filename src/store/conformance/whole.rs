//! Blobs, exports, the end.

use super::{PATIENCE, World, at, done, page, terms, wait};
use crate::{
    model::limits::BLOB_BYTES_MAX,
    store::{Commit, Entry, Epoch, Error, Item, Scan, Slot},
};

fn put(world: &World, value: &[u8]) -> [u8; 16] {
    done(wait(|done| world.store.put_blob(value.to_vec(), done)))
}

fn get(world: &World, id: [u8; 16]) -> Option<Vec<u8>> {
    done(wait(|done| world.store.get_blob(id, done)))
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| u8::try_from(at * 7 % 251).expect("below 251")).collect()
}

pub(super) fn a_blob_is_read_back_whole_or_not_at_all(world: &World) {
    let sizes = [0, 1, 32 * 1024, 32 * 1024 + 1, 300_000, BLOB_BYTES_MAX];
    let ids = sizes.map(|bytes| put(world, &pattern(bytes)));
    for (bytes, id) in sizes.into_iter().zip(ids) {
        assert!(get(world, id) == Some(pattern(bytes)), "a blob of {bytes} bytes reads back");
    }
    assert!(put(world, b"x") != put(world, b"x"), "every put has an id of its own");
    assert_eq!(get(world, [0xee; 16]), None);
    let too_big = wait(|done| world.store.put_blob(vec![0; BLOB_BYTES_MAX + 1], done));
    assert_eq!(too_big, Err(Error::TooBig { what: "blob", actual: BLOB_BYTES_MAX + 1, max: BLOB_BYTES_MAX }));
}

pub(super) fn a_sweep_leaves_what_it_is_told_to_keep(world: &World) {
    let ids: Vec<[u8; 16]> = (0..150_u8).map(|n| put(world, &[n; 3])).collect();
    let large = put(world, &pattern(500_000));
    let keep: Vec<_> = ids.iter().copied().step_by(3).chain([large]).collect();
    assert_eq!(done(wait(|done| world.store.sweep_blobs(keep.clone(), done))), 100);
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(get(world, *id).is_some(), n % 3 == 0, "blob {n}");
    }
    assert!(get(world, large) == Some(pattern(500_000)));
    let young = put(world, b"after");
    assert!(get(world, young).is_some());
    assert_eq!(done(wait(|done| world.store.sweep_blobs(Vec::new(), done))), 52);
    assert_eq!((get(world, large), get(world, young)), (None, None));
}

fn items(world: &World) -> Vec<Item> {
    let mut items = Vec::new();
    let mut after = None;
    loop {
        let walked = world.scan(Scan::All { after, bytes: 2000 });
        items.extend(walked.entries.into_iter().map(|entry| match entry {
            Entry::Item(item) => item,
            other @ (Entry::Wake { .. } | Entry::Found { .. }) => panic!("{other:?} is no item"),
        }));
        assert_eq!(walked.more, walked.mark.is_some(), "there is a mark exactly if there is more");
        after = walked.mark;
        if after.is_none() {
            return items;
        }
    }
}

/// The same in an order that does not depend on the store.
fn sorted(mut items: Vec<Item>) -> Vec<Item> {
    items.sort_by_cached_key(|item| match item {
        Item::Claimed { slot, .. } => format!("e{slot:05}"),
        Item::Core { kind, key, .. } => format!("c{kind} {key}"),
        Item::Page { kind, key, name, .. } => format!("p{kind} {key} {name}"),
        Item::Blob { id, .. } => format!("b{id:?}"),
    });
    items
}

pub(super) fn an_export_put_into_another_store_is_the_same_store(from: &World, into: &World) {
    for n in 0..40 {
        let pages = (0..n % 4).map(|page_n| page(&format!("p{page_n}"), Some(&pattern(n * 10)))).collect();
        let wake_at = (n % 5 == 0).then(|| at(1000));
        let all = terms(&["n=1"]);
        done(from.commit(Commit { pages, wake_at, terms: all.clone(), ..from.core(&format!("t/{n}"), 1, b"first") }));
        done(from.commit(Commit { wake_at, terms: all, ..from.core(&format!("t/{n}"), 2, &pattern(n * 20)) }));
    }
    done(from.commit(from.pages("pages only", 0, vec![page("one", Some(b"1"))])));
    let blob = put(from, &pattern(70_000));
    let newest = from.claim_aside("t/7");

    let exported = items(from);
    assert!(exported.len() > 100);
    for item in exported.clone() {
        done(wait(|done| into.store.put_item(item, done)));
    }
    if into.is_shared() {
        // There epochs are numbers of the store's own log.
        let lasting = |items: Vec<Item>| items.into_iter().filter(|item| !matches!(item, Item::Claimed { .. }));
        assert_eq!(sorted(lasting(items(into)).collect()), sorted(lasting(exported).collect()));
    } else {
        assert_eq!(sorted(items(into)), sorted(exported));
        let next = done(wait(|done| into.store.claim(Slot::default(), Some(newest), done)));
        assert!(next > newest, "epochs go on from there");
    }
    assert_eq!(get(into, blob), get(from, blob));
    (0..40).for_each(|n| assert!(into.epoch(&format!("t/{n}")) > Epoch(0)));
    assert_eq!(into.wakes(2000).len(), 8);
    assert_eq!(into.found("thing", &["n=1"]), from.found("thing", &["n=1"]));
    done(into.commit(into.core("t/7", 3, b"third")));
    assert!(put(into, b"new") != blob);
}

pub(super) fn a_closed_store_has_ended_what_it_took_and_takes_no_more(world: &World) {
    const COMMITS: usize = 100;
    let late = world.core("late", 1, b"core");
    for commit in (0..COMMITS).map(|n| world.core(&format!("t/{n}"), 1, b"core")).collect::<Vec<_>>() {
        world.store.commit(commit).expect("the queue has room for these");
    }
    done(wait(|done| world.store.close(done)));
    let ended: Vec<_> = world.ended.try_iter().collect();
    assert_eq!(ended.len(), COMMITS, "a commit that was taken ends before the store has closed");
    assert!(ended.iter().all(|ended| ended.result.is_ok()));
    let refused = world.store.commit(late).expect_err("a closed store hands a commit back");
    assert!(!refused.may_try_again(), "for good, not as if it were full: {refused}");
    assert_eq!(refused.commit.core.as_deref(), Some(b"core".as_slice()), "as it was");
    assert!(world.ended.recv_timeout(PATIENCE.mul_f32(0.001)).is_err(), "and does not end it");
    done(wait(|done| world.store.close(done)));
}
