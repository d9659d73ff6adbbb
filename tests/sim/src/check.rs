//! What must be true when everything is healed.

use std::collections::HashMap;

use service_twin::{
    model::Timestamp,
    store::{Load, Prefix, Store, memory::MemoryStore},
};

use crate::{
    book::{Book, COUNT, Op, digest},
    client::key,
    history::{Heard, History, Record},
    world::address,
};

/// What the answers to one operation allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Allowed {
    Once,
    Never,
    AtMostOnce,
}

fn allowed(record: &Record) -> Allowed {
    let mut allowed = Allowed::Never;
    for heard in &record.attempts {
        match heard {
            Heard::Done(_) | Heard::DoneBefore => return Allowed::Once,
            Heard::Nothing | Heard::Unknown => allowed = Allowed::AtMostOnce,
            Heard::NotApplied | Heard::Full(..) | Heard::TooOld => {}
        }
    }
    allowed
}

fn agree(what: &str, id: usize, record: &Record, found: usize) {
    let ok = match allowed(record) {
        Allowed::Once => found == 1,
        Allowed::Never => found == 0,
        Allowed::AtMostOnce => found <= 1,
    };
    assert!(ok, "{what} of operation {id} was found {found} times: {record:?}");
}

/// Checks everything callers were told against what is there.
pub fn all(history: &History, books: &[Book], quiet_until: Timestamp, store: &MemoryStore) {
    entries(history, books);
    order(history, books);
    sights(history, books);
    effects(history, books, quiet_until);
    alarms(history, books, quiet_until);
    pages(history, books, store);
    facts(history, books);
    answers(history, books);
    tallies(history);
    events(history, books);
}

fn entries(history: &History, books: &[Book]) {
    for (id, record) in history.records.iter().enumerate() {
        let done = &books[record.twin].done;
        let found: Vec<_> = (0..done.len()).filter(|at| usize::try_from(done[*at]) == Ok(id)).collect();
        if !record.op.is_entered() {
            assert_eq!(found.len(), 0, "operation {id} is never entered: {record:?}");
            if matches!(record.op, Op::Boom | Op::Bomb) {
                let done = record.attempts.iter().any(|heard| matches!(heard, Heard::Done(_) | Heard::DoneBefore));
                assert!(!done, "a panic is never a success: {record:?}");
            }
            continue;
        }
        agree("the entry", id, record, found.len());
        for heard in &record.attempts {
            if let Heard::Done(entry) = heard {
                assert_eq!(usize::try_from(*entry), Ok(found[0]), "operation {id}: each answer names its entry");
            }
        }
    }
    let entered: usize = books.iter().map(|book| book.done.len()).sum();
    let known = history
        .records
        .iter()
        .enumerate()
        .filter(|(id, record)| books[record.twin].done.iter().any(|entry| usize::try_from(*entry) == Ok(*id)));
    assert_eq!(entered, known.count(), "every entry is somebody's, at the right twin");
}

/// Operations without a key are sent once, so one caller's lie in the order sent.
fn order(history: &History, books: &[Book]) {
    for book in books {
        let mut newest = HashMap::new();
        for id in &book.done {
            let record = &history.records[usize::try_from(*id).expect("32 bits fit")];
            if !record.keyed {
                let before = newest.insert(record.client, *id);
                assert!(
                    before.is_none_or(|before| before < *id),
                    "{before:?} before {id} of one caller: {:?}",
                    book.done
                );
            }
        }
    }
}

/// What was read, and what a refusal was based on, must have become durable.
fn sights(history: &History, books: &[Book]) {
    let read = history.sights.iter().map(|sight| (sight.twin, sight.count, sight.digest));
    let refused = history.records.iter().flat_map(|record| {
        record.attempts.iter().filter_map(|heard| match heard {
            Heard::Full(count, digest) => Some((record.twin, *count, *digest)),
            Heard::Nothing
            | Heard::Done(_)
            | Heard::DoneBefore
            | Heard::NotApplied
            | Heard::Unknown
            | Heard::TooOld => None,
        })
    });
    for (twin, count, seen) in read.chain(refused) {
        let count = usize::try_from(count).expect("32 bits fit");
        let done = &books[twin].done;
        let truth = done.get(..count).map(digest);
        assert_eq!(
            truth,
            Some(seen),
            "twin {twin}: somebody saw {count} entries that did not become durable: {done:?}"
        );
    }
}

/// What was promised to another twin arrived once, with nobody calling, and only if it was promised.
fn effects(history: &History, books: &[Book], quiet_until: Timestamp) {
    for (id, record) in history.records.iter().enumerate() {
        let (Op::Tell(to) | Op::Shout(to) | Op::Ask(to) | Op::Whisper(to)) = &record.op else { continue };
        let target = (0..books.len()).find(|twin| key(*twin) == *to).expect("the target is one of them");
        let arrived: Vec<_> =
            books[target].heard.iter().filter(|(heard, _)| usize::try_from(*heard) == Ok(id)).collect();
        for (_, at) in &arrived {
            assert!(*at < quiet_until, "operation {id} arrived only when somebody called: {record:?}");
        }
        if matches!(record.op, Op::Whisper(_)) {
            assert!(arrived.len() <= 1, "what a volatile twin told arrives at most once: {record:?}");
        } else if record.op.is_entered() {
            let entered = books[record.twin].done.iter().filter(|entry| usize::try_from(**entry) == Ok(id)).count();
            assert_eq!(arrived.len(), entered, "what operation {id} told arrives once if it was entered: {record:?}");
        } else {
            agree("what was told", id, record, arrived.len());
        }
    }
    for book in books {
        for (id, _) in &book.heard {
            let record = &history.records[usize::try_from(*id).expect("32 bits fit")];
            let told = matches!(record.op, Op::Tell(_) | Op::Shout(_) | Op::Ask(_) | Op::Whisper(_));
            assert!(told, "nobody told {id}: {record:?}");
        }
    }
}

/// Every reminder fired once, not early, with nobody calling.
fn alarms(history: &History, books: &[Book], quiet_until: Timestamp) {
    for (twin, book) in books.iter().enumerate() {
        assert_eq!(book.alarms, [], "twin {twin}: every reminder was due");
        for (id, due, at) in &book.fired {
            assert!(at >= due, "the reminder of operation {id} fired early");
            assert!(*at < quiet_until, "the reminder of operation {id} fired only when somebody called");
        }
    }
    for (id, record) in history.records.iter().enumerate() {
        if !matches!(record.op, Op::Alarm(_)) {
            continue;
        }
        let book = &books[record.twin];
        let entered = book.done.iter().filter(|entry| usize::try_from(**entry) == Ok(id)).count();
        let fired = book.fired.iter().filter(|(fired, _, _)| usize::try_from(*fired) == Ok(id)).count();
        assert_eq!(fired, entered, "the reminder of operation {id}: {record:?}");
    }
}

/// Pages are as the last operation left them that was entered; a page of its own is there if its operation was done.
fn pages(history: &History, books: &[Book], store: &MemoryStore) {
    for (twin, book) in books.iter().enumerate() {
        let found = read(store, twin);
        let mut expected = HashMap::new();
        for id in &book.done {
            if let Op::Page(slot) = &history.records[usize::try_from(*id).expect("32 bits fit")].op {
                expected.insert(format!("p/{slot}"), *id);
            }
        }
        let counted = book.done.iter().filter(|id| {
            let record = &history.records[usize::try_from(**id).expect("32 bits fit")];
            record.op == Op::Count
        });
        let counted = u32::try_from(counted.count()).expect("few entries");
        assert_eq!(found.get(COUNT).copied().unwrap_or(0), counted, "twin {twin}: each count read the one before");
        for (name, id) in &expected {
            assert_eq!(found.get(name), Some(id), "twin {twin}: page {name}");
        }
        let shared = found.keys().filter(|name| name.starts_with("p/")).count();
        assert_eq!(shared, expected.len(), "twin {twin}: no page without its entry");
        for (id, record) in history.records.iter().enumerate() {
            if record.twin == twin && record.op == Op::Scrawl {
                agree("the page", id, record, usize::from(found.contains_key(&format!("s/{id}"))));
            }
        }
    }
}

/// What an observation made known is there once if it was answered (unless the record may have been full); what was only
/// observed may have been lost, and is never more than was sent.
fn facts(history: &History, books: &[Book]) {
    let mut sent = vec![0; books.len()];
    for (id, record) in history.records.iter().enumerate() {
        let Op::Sniff(bytes) = record.op else { continue };
        sent[record.twin] += 1;
        let found = books[record.twin].sniffed.iter().filter(|fact| usize::try_from(**fact) == Ok(id)).count();
        let may_be_full = record.twin > 0 && record.twin + 1 == books.len();
        if bytes == 0 {
            assert_eq!(found, 0, "no fact was made of operation {id}");
        } else if may_be_full {
            assert!(found <= 1, "the fact of operation {id} was found {found} times: {record:?}");
        } else {
            agree("the fact", id, record, found);
        }
    }
    for (twin, (book, sent)) in books.iter().zip(sent).enumerate() {
        assert!(book.seen.count <= sent, "twin {twin} observed {} of {sent}", book.seen.count);
    }
}

/// The answer to an ask comes back once, over crashes and lost commits, although nobody calls; and only to who asked.
fn answers(history: &History, books: &[Book]) {
    for (id, record) in history.records.iter().enumerate() {
        for (twin, book) in books.iter().enumerate() {
            let times = book.answered.iter().filter(|answered| usize::try_from(**answered) == Ok(id)).count();
            let asked = record.twin == twin && matches!(record.op, Op::Ask(_));
            let entered = asked && book.done.iter().any(|entry| usize::try_from(*entry) == Ok(id));
            assert_eq!(times, usize::from(entered), "the answer to {id} at twin {twin}: {record:?}");
        }
    }
}

/// A volatile twin counts without a gap or a repeat as long as it is in memory.
fn tallies(history: &History) {
    let mut seen = std::collections::HashSet::new();
    for tally in &history.tallies {
        assert!(seen.insert(tally), "two calls got the same count: {tally:?}");
    }
}

/// Watchers hear of what is durable, once, in the order of revisions; and of everything that was answered as done, unless
/// the process died. What was done by an attempt whose outcome was unknown is told by nobody.
fn events(history: &History, books: &[Book]) {
    let mut heard = std::collections::HashSet::new();
    let ends = history.lives.iter().skip(1).map(|next| next.first).chain([history.records.len()]);
    for (life, end) in history.lives.iter().zip(ends) {
        let mut newest = HashMap::new();
        for told in &life.events {
            assert!(heard.insert(told.id), "operation {} was told twice", told.id);
            let before = newest.insert(&told.key, told.revision);
            assert!(before.is_none_or(|before| before <= told.revision), "{told:?} after revision {before:?}");
            let twin = (0..books.len()).find(|twin| *key(*twin) == *told.key).expect("an event is of one of them");
            assert!(books[twin].done.contains(&told.id), "{told:?} did not become durable");
        }
        for (id, record) in (0..).zip(&history.records).take(end).skip(life.first) {
            let entered = matches!(record.attempts[..], [Heard::Done(_)]) && books[record.twin].done.contains(&id);
            assert!(!(entered && life.drained) || heard.contains(&id), "nobody was told of operation {id}: {record:?}");
        }
    }
}

/// The pages of a twin that operations write.
fn read(store: &MemoryStore, twin: usize) -> HashMap<String, u32> {
    let (tell, told) = std::sync::mpsc::channel();
    for prefix in ["p/", "s/", COUNT] {
        let prefix = Some(Prefix { prefix: prefix.into(), after: None, limit: usize::MAX });
        let tell = tell.clone();
        let load = Load { address: address(twin).into(), core: false, pages: Vec::new(), prefix, under: None };
        store
            .load(load, Box::new(move |loaded| tell.send(loaded.expect("a healed store reads")).expect("it is heard")));
    }
    drop(tell);
    let pages = told.into_iter().flat_map(|loaded| loaded.pages);
    pages.map(|(name, bytes)| (name.into(), u32::from_le_bytes(bytes.try_into().expect("4 bytes")))).collect()
}
