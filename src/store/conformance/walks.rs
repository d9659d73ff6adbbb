//! Ordered reads.

use super::{World, address, at, done, found, page, terms, wake};
use crate::{
    model::Key,
    store::{Address, Commit, Load, Prefix, Scan},
};

pub(super) fn pages_of_one_twin_are_read_in_name_order_and_apart_from_others(world: &World) {
    // Keys of which one is the start of another, and one that sorts between.
    for key in ["a", "a!", "a/b", "ab"] {
        let names = ["j/1", "j/10", "j/2", "k"];
        done(world.commit(world.pages(key, 0, names.map(|name| page(name, Some(key.as_bytes()))).to_vec())));
    }
    let read = |prefix: &str, after: Option<&str>, limit| {
        let prefix = Some(Prefix { prefix: prefix.into(), after: after.map(Into::into), limit });
        let loaded = world.load(Load { address: address("a"), core: false, pages: Vec::new(), prefix, under: None });
        assert!(loaded.pages.iter().all(|(_, value)| value == b"a"), "another twin's page was read");
        loaded.pages.into_iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(read("j/", None, 9), ["j/1", "j/10", "j/2"]);
    assert_eq!(read("j/", None, 2), ["j/1", "j/10"]);
    assert_eq!(read("j/", Some("j/10"), 9), ["j/2"]);
    assert_eq!(read("j/", Some("a"), 9), ["j/1", "j/10", "j/2"]);
    assert_eq!(read("j/", Some("j/9"), 9), [""; 0]);
    assert_eq!(read("j/", Some("z"), 9), [""; 0]);
    assert_eq!(read("", None, 9), ["j/1", "j/10", "j/2", "k"]);
    assert_eq!(read("none", None, 9), [""; 0]);
    assert_eq!(read("j", None, 9), ["j/1", "j/10", "j/2"]);
    // Names without a slash, names that begin with one, and runs over several folders.
    let names = ["/", "/x", "j", "ja/1", "j\0/1", "k/1", "k/2/3", "l"];
    done(world.commit(world.pages("b", 0, names.map(|name| page(name, Some(b"b"))).to_vec())));
    let read = |prefix: &str, after: Option<&str>, limit| {
        let prefix = Some(Prefix { prefix: prefix.into(), after: after.map(Into::into), limit });
        let loaded = world.load(Load { address: address("b"), core: false, pages: Vec::new(), prefix, under: None });
        loaded.pages.into_iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>()
    };
    let mut all = names;
    all.sort_unstable();
    for (from, name) in all.iter().enumerate() {
        assert_eq!(read("", Some(name), 9), all[from + 1..], "after {name:?}");
        assert_eq!(read("", None, from), all[..from]);
        let starting: Vec<_> = all.iter().filter(|other| other.starts_with(name)).copied().collect();
        assert_eq!(read(name, None, 9), starting, "prefix {name:?}");
        assert_eq!(read(name, Some("k/1"), 9), starting.into_iter().filter(|name| *name > "k/1").collect::<Vec<_>>());
    }
    let both = Load {
        address: address("a"),
        core: true,
        pages: vec!["k".into(), "j/2".into()],
        prefix: Some(Prefix { prefix: "j/".into(), after: None, limit: 9 }),
        under: None,
    };
    let names: Vec<_> = world.load(both).pages.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["j/1", "j/10", "j/2", "k"], "each page once, in name order");
}

pub(super) fn the_wake_index_holds_the_last_word_of_every_twin_in_time_order(world: &World) {
    let say = |key: &str, sequence, wake: Option<u64>| {
        let core = [u8::try_from(sequence).expect("small")];
        done(world.commit(Commit { wake_at: wake.map(at), ..world.core(key, sequence, &core) }));
    };
    say("c", 1, Some(300));
    say("a", 1, Some(100));
    say("b", 1, Some(200));
    say("d", 1, Some(70_000_000_000));
    say("e", 1, None);
    say("f", 1, Some(0));
    assert_eq!(world.wakes(200), [(0, "f".into(), 1), (100, "a".into(), 1), (200, "b".into(), 1)]);
    assert_eq!(world.wakes(199).len(), 2, "until is included, what is later is not");
    say("b", 2, Some(200));
    say("a", 2, Some(250));
    say("c", 2, None);
    say("f", 2, None);
    assert_eq!(
        world.wakes(u64::MAX),
        [(200, "b".into(), 1), (250, "a".into(), 2), (70_000_000_000, "d".into(), 1)],
        "an entry carries the sequence of the record that said so"
    );
    let mut seen = Vec::new();
    let mut after: Option<(crate::model::Timestamp, Address)> = None;
    for n in 0..3_u8 {
        let walked = world.scan(Scan::Wake { until: at(u64::MAX), after: after.take(), limit: 1 });
        assert_eq!((walked.entries.len(), walked.more), (1, n < 2));
        for entry in walked.entries {
            let (time, key, _) = wake(entry);
            after = Some((at(time), Address::clone(&address(&key))));
            seen.push(key);
        }
    }
    assert_eq!(seen, ["b", "a", "d"]);
    let nothing = world.scan(Scan::Wake { until: at(220), after, limit: 9 });
    assert_eq!((nothing.entries, nothing.more), (vec![], false), "reading on behind `until` finds nothing");
}

pub(super) fn twins_are_found_by_all_of_their_present_terms(world: &World) {
    let say = |key: &str, sequence, all: &[&str]| {
        let core = [u8::try_from(sequence).expect("small")];
        done(world.commit(Commit { terms: terms(all), ..world.core(key, sequence, &core) }));
    };
    say("a", 1, &["health=up", "tier=1"]);
    say("b", 1, &["health=down", "tier=1"]);
    say("c", 1, &["health=up", "tier=2"]);
    say("d", 1, &[]);
    say("e", 1, &["health=u", "odd=\u{0}x", "odd=\u{1}", "tier="]);
    let mut other = world.core("z", 1, b"1");
    other.address = std::sync::Arc::new(Address { kind: "thing2".into(), key: Key::parse("z").expect("a key") });
    other.terms = terms(&["health=up"]);
    done(world.commit(other));

    assert_eq!(world.found("thing", &["health=up"]), ["a", "c"]);
    assert_eq!(world.found("thing", &["health=up", "tier=1"]), ["a"]);
    assert_eq!(world.found("thing", &["tier=1", "tier=2"]), [""; 0]);
    assert_eq!(world.found("thing", &["health=u*"]), ["a", "c", "e"]);
    assert_eq!(world.found("thing", &["health=*", "tier=1"]), ["a", "b"]);
    assert_eq!(world.found("thing", &["health=d*", "tier=*"]), ["b"]);
    assert_eq!(world.found("thing", &["tier="]), ["e"]);
    assert_eq!(world.found("thing", &["odd=\u{0}x"]), ["e"]);
    assert_eq!(world.found("thing", &["odd=\u{0}*"]), ["e"]);
    assert_eq!(world.found("thing", &["odd=\u{0}"]), [""; 0]);
    assert_eq!(world.found("thing", &["none=1"]), [""; 0]);
    assert_eq!(world.found("thing", &[]), ["a", "b", "c", "d", "e"]);
    assert_eq!(world.found("thing2", &["health=up"]), ["z"]);
    assert_eq!(world.found("thin", &[]), [""; 0]);

    say("a", 2, &["health=down"]);
    say("c", 2, &["health=up", "tier=2"]);
    assert_eq!(world.found("thing", &["health=up"]), ["c"]);
    assert_eq!(world.found("thing", &["health=down"]), ["a", "b"]);
    assert_eq!(world.found("thing", &["tier=1"]), ["b"]);
    say("c", 3, &[]);
    assert_eq!(world.found("thing", &["health=up"]), [""; 0]);
}

pub(super) fn a_search_goes_on_where_its_page_ended(world: &World) {
    for n in 0..25 {
        let all = if n % 2 == 0 { terms(&["even=yes", "n=1"]) } else { terms(&["even=no"]) };
        done(world.commit(Commit { terms: all, ..world.core(&format!("t/{n:02}"), 1, b"core") }));
    }
    for (wanted, total) in [(vec![], 25), (vec!["even=yes"], 13), (vec!["even=yes", "n=1"], 13), (vec!["even=*"], 25)] {
        let mut seen: Vec<String> = Vec::new();
        loop {
            let walked = world.scan(Scan::Find {
                kind: "thing".into(),
                terms: wanted.iter().map(|term| (*term).into()).collect(),
                after: seen.last().map(|key| Key::parse(key).expect("a key")),
                limit: 4,
            });
            assert!(walked.entries.len() <= 4);
            seen.extend(walked.entries.into_iter().map(|entry| found(entry).0));
            if !walked.more {
                break;
            }
        }
        assert!(seen.is_sorted() && seen.len() == total, "{wanted:?}: {seen:?}");
    }
}
