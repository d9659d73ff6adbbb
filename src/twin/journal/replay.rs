//! Reading a twin as it was.

use compact_str::CompactString;

use super::{Entry, Tail, base_name, chunk_name};
use crate::{
    model::{Principal, Timestamp},
    twin::{Event, Persistence, Rejection, Shape, Twin, record},
};

/// A moment in a twin's past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// After so many changes; one inside a commit stands for the whole commit.
    Revision(u64),
    /// At this time.
    Time(Timestamp),
}

/// A twin as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed<K> {
    /// The state.
    pub state: K,
    /// Its revision.
    pub revision: u64,
    /// When that revision was made.
    pub at: Timestamp,
    /// By whom.
    pub by: Principal,
}

/// An event of a twin's past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retold {
    /// The twin's revision after the change.
    pub revision: u64,
    /// When it was decided.
    pub at: Timestamp,
    /// What happened.
    pub event: Event,
}

/// Why the past cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The moment is not one that is kept.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The pages cannot be used.
    #[error(transparent)]
    Damaged(#[from] record::Error),
}

/// What [`replay`] needs for a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// The base to begin with; `None` to begin with a new twin.
    pub base: Option<CompactString>,
    /// Chunks, in this order.
    pub chunks: Vec<CompactString>,
    /// Whether the tail's own entries follow; otherwise they do not belong there.
    pub tail: bool,
}

impl Tail {
    /// Names what to read for a moment: a group, and the tail if it is the newest.
    pub fn reads(&self, moment: Moment) -> Result<Reads, Rejection> {
        let groups = &self.known.groups;
        let begun = match moment {
            Moment::Revision(revision) if revision > self.known.revision => {
                return Err(not_yet(revision, self.known.revision));
            }
            Moment::Revision(revision) => groups.partition_point(|group| group.revision < revision),
            Moment::Time(time) => groups.partition_point(|group| group.at <= time),
        };
        if groups.is_empty() {
            return Err(nothing_yet());
        }
        let Some(oldest) = groups.iter().find(|group| group.based) else {
            return Err(Rejection::Gone { oldest_revision: self.known.revision + 1, oldest_at: self.known.at });
        };
        let Some(group) = begun.checked_sub(1).and_then(|at| groups.get(at)).filter(|group| group.based) else {
            return Err(match oldest.revision {
                0 => nothing_yet(),
                revision => Rejection::Gone { oldest_revision: revision + 1, oldest_at: oldest.at.min(self.known.at) },
            });
        };
        Ok(Reads {
            base: (group.revision > 0).then(|| base_name(group.revision)),
            chunks: (0..group.chunks).map(|number| chunk_name(group.revision, number)).collect(),
            tail: begun == groups.len(),
        })
    }
}

/// Makes the twin as it was at a moment, from a base (or a new twin) and the entries after it. A revision inside a turn
/// that made several changes is answered as of the last of them: nobody ever saw the state between.
pub fn replay<K: Twin>(
    upto: Moment,
    base: Option<(u64, K)>,
    entries: impl Iterator<Item = (Shape, Entry)>,
    key: &str,
) -> Result<Replayed<K>, Error> {
    let (oldest, mut state) = base.unwrap_or_else(|| (0, K::create(key)));
    let mut revision = oldest;
    let mut last = None;
    let mut first_at = None;
    for (shape, entry) in entries.skip_while(|(_, entry)| entry.revision <= oldest) {
        first_at = first_at.or(Some(entry.at));
        let is_there = match upto {
            Moment::Revision(wanted) => wanted <= revision,
            Moment::Time(time) => entry.at > time,
        };
        if is_there {
            break;
        }
        if entry.since() != revision {
            let detail = format!("the journal goes from revision {revision} to {}", entry.since());
            return Err(record::frame(&detail).into());
        }
        for change in &entry.changes {
            state.apply(&K::Persistence::decode_change(shape, change)?, entry.at);
            revision += 1;
        }
        last = Some((entry.at, entry.principal));
    }
    match (last, upto) {
        (_, Moment::Revision(wanted)) if wanted > revision => Err(not_yet(wanted, revision).into()),
        (Some((at, by)), _) => Ok(Replayed { state, revision, at, by }),
        (None, _) if oldest == 0 => Err(nothing_yet().into()),
        (None, _) => {
            let oldest_at = first_at.unwrap_or(Timestamp::MAX);
            Err(Rejection::Gone { oldest_revision: oldest + 1, oldest_at }.into())
        }
    }
}

/// The events of the changes after a revision, from a base (or a new twin) and the entries after it, as they were when
/// they happened; and the revision that is reached.
pub fn retell<K: Twin>(
    after: u64,
    base: Option<(u64, K)>,
    entries: impl Iterator<Item = (Shape, Entry)>,
    key: &str,
) -> Result<(Vec<Retold>, u64), record::Error> {
    let (mut revision, mut state) = base.unwrap_or_else(|| (0, K::create(key)));
    let mut told = Vec::new();
    for (shape, entry) in entries {
        if entry.revision <= revision {
            continue;
        }
        if entry.since() != revision {
            let detail = format!("the journal goes from revision {revision} to {}", entry.since());
            return Err(record::frame(&detail));
        }
        for change in &entry.changes {
            let change = K::Persistence::decode_change(shape, change)?;
            state.apply(&change, entry.at);
            revision += 1;
            if revision > after {
                told.extend(state.event(&change).map(|event| Retold { revision, at: entry.at, event }));
            }
        }
    }
    Ok((told, revision))
}

fn not_yet(wanted: u64, newest: u64) -> Rejection {
    Rejection::not_found(format!("revision {wanted} (the newest is {newest})"))
}

fn nothing_yet() -> Rejection {
    Rejection::not_found("the twin's first change came after that moment: a state before it was")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::twin::{
        Durable, Snapshot, from_bytes,
        journal::{CHUNKS_PER_BASE, PAGES_MAX, decode_base, decode_chunk, parse},
        to_bytes,
    };

    /// A sum that also folds in order and time, so that no two histories end alike.
    #[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
    struct Sum {
        total: u64,
    }

    impl Twin for Sum {
        const KIND: &'static str = "sum";
        type Persistence = Durable;
        type Change = Vec<u8>;
        fn create(key: &str) -> Self {
            Self { total: u64::try_from(key.len()).unwrap() }
        }
        fn apply(&mut self, change: &Vec<u8>, at: Timestamp) {
            for number in change.iter().map(|byte| u64::from(*byte)).chain([at.unix_ms()]) {
                self.total = self.total.wrapping_mul(31).wrapping_add(number);
            }
        }
    }

    impl Snapshot for Sum {
        const SCHEMA: u16 = 1;
        const FIELDS: &'static str = "total:u64";
    }

    const KEY: &str = "it";
    const SHAPE: Shape = <Durable as Persistence<Sum>>::SHAPE;

    /// A twin with its journal in a store, and every state it ever had.
    struct World {
        state: Sum,
        tail: Tail,
        pages: BTreeMap<String, Vec<u8>>,
        was: Vec<(Sum, Timestamp)>,
        /// Where the turn ended that made each revision.
        ends: Vec<u64>,
        now: Timestamp,
    }

    impl World {
        fn new() -> Self {
            let state = Sum::create(KEY);
            let was = vec![(state.clone(), Timestamp::ZERO)];
            Self { state, tail: Tail::default(), pages: BTreeMap::new(), was, ends: vec![0], now: Timestamp::ZERO }
        }

        fn turn(&mut self, changes: &[Vec<u8>], later_ms: u64) {
            self.now = Timestamp::from_unix_ms(self.now.unix_ms() + later_ms);
            for change in changes {
                self.state.apply(change, self.now);
                self.was.push((self.state.clone(), self.now));
            }
            self.ends.resize(self.was.len(), self.newest());
            let entry = Entry {
                revision: self.newest(),
                at: self.now,
                principal: Principal::Host,
                trace: None,
                request: Some("key".into()),
                changes: changes.iter().map(to_bytes).collect(),
            };
            self.tail.append(&entry, SHAPE);
        }

        fn commit(&mut self) {
            let (state, newest) = (self.state.clone(), self.newest());
            for write in self.tail.rotate(newest, || to_bytes(&state), SHAPE).map(|r| r.writes).unwrap_or_default() {
                assert!(parse(&write.name).is_some());
                match write.value {
                    Some(value) => assert!(self.pages.insert(write.name.to_string(), value).is_none()),
                    None => assert!(self.pages.remove(write.name.as_str()).is_some(), "{} is not there", write.name),
                }
            }
            let mut bytes = Vec::new();
            self.tail.encode(&mut bytes);
            assert!(bytes.len() <= self.tail.bytes());
            assert_eq!(Tail::decode(&bytes).unwrap(), self.tail);
        }

        fn newest(&self) -> u64 {
            u64::try_from(self.was.len() - 1).unwrap()
        }

        fn read(&self, moment: Moment) -> Result<Replayed<Sum>, Error> {
            let reads = self.tail.reads(moment)?;
            let base = reads.base.map(|name| {
                let (_, revision, state) = decode_base(&self.pages[name.as_str()]).unwrap();
                (revision, from_bytes(state).unwrap())
            });
            let mut entries = Vec::new();
            for name in &reads.chunks {
                entries.extend(decode_chunk(&self.pages[name.as_str()]).unwrap());
            }
            if reads.tail {
                entries.extend(self.tail.entries().unwrap());
            }
            replay(moment, base, entries.into_iter(), KEY)
        }

        /// Reads every moment and compares it with what was; answers the oldest readable revision.
        fn check(&self) -> u64 {
            let mut oldest = 1;
            for (revision, (_, at)) in (0..).zip(&self.was).skip(1) {
                match self.read(Moment::Revision(revision)) {
                    Ok(read) => {
                        let end = self.ends[usize::try_from(revision).unwrap()];
                        let whole = &self.was[usize::try_from(end).unwrap()].0;
                        assert_eq!((&read.state, read.revision, read.at), (whole, end, *at));
                        let last = self.was.iter().rposition(|(_, then)| then <= at).unwrap();
                        assert_eq!(self.read(Moment::Time(*at)).unwrap().state, self.was[last].0);
                    }
                    Err(Error::Rejected(Rejection::Gone { oldest_revision, oldest_at })) => {
                        assert!(revision < oldest_revision);
                        assert_eq!(self.was[usize::try_from(oldest_revision).unwrap()].1, oldest_at);
                        oldest = oldest_revision;
                    }
                    Err(error) => panic!("revision {revision}: {error}"),
                }
            }
            oldest
        }
    }

    #[test]
    fn a_revision_that_is_still_to_come_is_refused_with_the_newest() {
        assert_eq!(not_yet(9, 4).to_string(), "revision 9 (the newest is 4) not found");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn every_revision_reads_back_as_the_commit_that_made_it_left_it(
            turns in vec((vec(vec(any::<u8>(), 0..300), 1..4), 0_u64..3, any::<bool>()), 1..150),
        ) {
            let mut world = World::new();
            for (changes, later_ms, commit) in &turns {
                world.turn(changes, *later_ms);
                if *commit {
                    world.commit();
                }
            }
            prop_assert_eq!(world.check(), 1);
            let newest = world.newest();
            for beyond in [newest + 1, u64::MAX] {
                let refused = matches!(
                    world.read(Moment::Revision(beyond)),
                    Err(Error::Rejected(Rejection::NotFound { .. }))
                );
                prop_assert!(refused);
            }
        }
    }

    #[test]
    fn the_oldest_groups_are_forgotten_and_what_is_kept_reads_back() {
        let mut world = World::new();
        for _ in 0..PAGES_MAX + 20 {
            world.turn(&[vec![7; 1100]], 1);
            world.commit();
        }
        assert!(world.check() > 1);
        let chunks_max = PAGES_MAX + usize::from(CHUNKS_PER_BASE);
        assert!(world.pages.len() <= chunks_max + chunks_max / usize::from(CHUNKS_PER_BASE) + 1);
    }

    #[test]
    fn what_is_older_than_the_time_kept_is_forgotten() {
        let mut world = World::new();
        let day_ms = 24 * 60 * 60 * 1000;
        for _ in 0..100 {
            world.turn(&[vec![7; 1100]], day_ms);
            world.commit();
        }
        let oldest = world.check();
        assert!((100 - 30 - 3 * u64::from(CHUNKS_PER_BASE)..=70).contains(&oldest), "{oldest}");
    }

    #[test]
    fn a_journal_that_begins_late_reads_from_its_first_base_on() {
        let mut world = World::new();
        for _ in 0..5 {
            world.turn(&[vec![1]], 1);
        }
        world.tail = Tail::default();
        world.turn(&[vec![7; 1100]], 1);
        let gone = world.read(Moment::Revision(6));
        assert!(matches!(gone, Err(Error::Rejected(Rejection::Gone { oldest_revision: 7, .. }))), "{gone:?}");
        world.commit();
        world.turn(&[vec![2]], 1);
        assert_eq!(world.check(), 7);
    }

    #[test]
    fn a_forgotten_past_is_refused_at_once_and_swept_page_by_page() {
        let mut world = World::new();
        for _ in 0..40 {
            world.turn(&[vec![7; 1100]], 1);
            world.commit();
        }
        world.turn(&[vec![1]], 1);
        let removed = world.newest();
        let base = world.tail.forget_past(removed, &to_bytes(&world.state), SHAPE);
        world.pages.insert(base.name.to_string(), base.value.unwrap());
        for revision in 1..=removed {
            let gone = world.read(Moment::Revision(revision));
            assert!(
                matches!(gone, Err(Error::Rejected(Rejection::Gone { oldest_revision, .. })) if oldest_revision == removed + 1)
            );
        }
        assert!(matches!(world.read(Moment::Time(world.now)), Err(Error::Rejected(Rejection::Gone { .. }))));
        for _ in 0..10 {
            world.turn(&[vec![9; 500]], 1);
            world.commit();
            assert_eq!(world.check(), removed + 1);
        }
        let mut commits = 0;
        while world.tail.is_unswept() {
            let writes = world.tail.sweep(10);
            assert!((1..=10).contains(&writes.len()));
            for write in writes {
                assert!(world.pages.remove(write.name.as_str()).is_some(), "{} is not there", write.name);
            }
            world.commit();
            commits += 1;
        }
        assert_eq!(commits, 5);
        assert_eq!(world.check(), removed + 1);
        let reads = world.tail.reads(Moment::Revision(removed + 1)).unwrap();
        assert_eq!(world.pages.len(), reads.chunks.len() + 1, "nothing else is left");
    }

    #[test]
    fn a_missing_chunk_is_noticed() {
        let mut world = World::new();
        world.turn(&[vec![1]], 1);
        world.turn(&[vec![2]], 1);
        let entries = world.tail.entries().unwrap().into_iter().skip(1);
        let read = replay::<Sum>(Moment::Revision(2), None, entries, KEY);
        assert!(matches!(read, Err(Error::Damaged(_))), "{read:?}");
    }
}
