//! Who is here: what presence records say, and when one that stays silent is to be declared dead.
//!
//! Pure; time is what the caller's own clock says. Declaring a node dead takes two steps. It is *suspected* once its
//! record has kept one number for `ttl + margin`. Whoever suspects it then has to win a compare-and-set on that number:
//! only this proves that it did not renew meanwhile, and from then on its own renewals are refused.

use std::{collections::BTreeMap, time::Duration};

use compact_str::CompactString;

use super::{Incarnation, NodeId, Presence, Revision, State, engine::Sighting};

/// A node as its presence record has it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The record.
    pub presence: Presence,
    /// Its number.
    pub revision: Revision,
    /// Since when it has this number, by our own clock.
    since: Duration,
    /// In which round of the watch it was seen last.
    round: u64,
}

impl Seen {
    /// Whether this life of the node lives.
    pub(super) fn is_live(&self, life: Incarnation) -> bool {
        self.presence.incarnation == life && self.presence.state != State::Dead
    }
}

/// Whether an owner lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its presence says so.
    Live,
    /// It was declared dead, or has a later life.
    Dead,
    /// Nothing is known of this life.
    Unknown,
}

/// A node to be declared dead by a compare-and-set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// The node.
    pub node: NodeId,
    /// The record that declares it dead.
    pub dead: Presence,
    /// The number its record has had all the time.
    pub expected: Revision,
}

/// All nodes as a watch shows them.
#[derive(Clone, Debug, Default)]
pub struct View {
    nodes: BTreeMap<NodeId, Seen>,
    /// Owners without a presence, and since when.
    absent: BTreeMap<NodeId, Duration>,
    round: u64,
    current: bool,
}

impl View {
    /// A watch begins, and will show everything once more.
    pub fn begin(&mut self) {
        self.round += 1;
        self.current = false;
        self.absent.clear();
    }

    /// The watch has shown everything that is there.
    pub fn complete(&mut self) {
        let round = self.round;
        self.nodes.retain(|_, seen| seen.round == round);
        self.current = true;
    }

    /// The watch is broken.
    pub fn broken(&mut self) {
        self.current = false;
    }

    /// Whether the watch shows everything.
    pub fn is_current(&self) -> bool {
        self.current
    }

    /// Takes in a record, from the watch, a read, or as this node wrote it itself. What is older changes nothing.
    /// Answers whether anything but its number and load is new.
    pub fn see(&mut self, sighting: Sighting, now: Duration) -> bool {
        let Sighting { node, presence, revision } = sighting;
        let round = self.round;
        match (presence, self.nodes.get_mut(&node)) {
            (_, Some(seen)) if revision < seen.revision => false,
            (None, _) => self.nodes.remove(&node).is_some(),
            (Some(_), Some(seen)) if seen.revision == revision => {
                seen.round = round;
                false
            }
            (Some(presence), known) => {
                let same = |seen: &mut Seen| Presence { load: presence.load, ..seen.presence.clone() } == presence;
                let is_news = !known.is_some_and(same);
                self.absent.remove(&node);
                self.nodes.insert(node, Seen { presence, revision, since: now, round });
                is_news
            }
        }
    }

    /// A record of this number turned out not to be there any more.
    pub fn forget(&mut self, node: &NodeId, revision: Revision) {
        if self.nodes.get(node).is_some_and(|seen| seen.revision == revision) {
            self.nodes.remove(node);
        }
    }

    /// A node's record.
    pub fn get(&self, node: &NodeId) -> Option<&Seen> {
        self.nodes.get(node)
    }

    /// Every node's record, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &Seen)> {
        self.nodes.iter()
    }

    /// The nodes that take slots, in the order of names.
    pub fn up(&self) -> impl Iterator<Item = &NodeId> + Clone {
        self.nodes.iter().filter(|(_, seen)| seen.presence.state == State::Up).map(|(node, _)| node)
    }

    /// Whether one life of a node goes on.
    pub fn standing(&self, node: &NodeId, incarnation: Incarnation) -> Standing {
        match self.nodes.get(node) {
            Some(seen) if seen.is_live(incarnation) => Standing::Live,
            Some(seen) if seen.presence.incarnation >= incarnation => Standing::Dead,
            Some(_) | None => Standing::Unknown,
        }
    }

    /// How long a node's record has kept its number.
    pub fn silence(&self, node: &NodeId, now: Duration) -> Option<Duration> {
        self.nodes.get(node).map(|seen| now.saturating_sub(seen.since))
    }

    /// Whoever has been silent for `after`, among nodes other than `me` that are present or own something (with the
    /// latest life that does). Nobody while the watch is not current.
    pub fn suspects(
        &mut self,
        me: &NodeId,
        owning: &BTreeMap<NodeId, Incarnation>,
        now: Duration,
        after: Duration,
    ) -> Vec<Suspect> {
        if !self.current {
            return Vec::new();
        }
        let mut found = Vec::new();
        for (node, seen) in self.nodes.iter().filter(|(node, _)| *node != me) {
            let life = owning.get(node).copied().unwrap_or_default().max(seen.presence.incarnation);
            let known_dead = seen.presence.state == State::Dead && seen.presence.incarnation == life;
            if !known_dead && now.saturating_sub(seen.since) >= after {
                let dead = Presence { state: State::Dead, incarnation: life, load: 0, ..seen.presence.clone() };
                found.push(Suspect { node: node.clone(), dead, expected: seen.revision });
            }
        }
        self.absent.retain(|node, _| owning.contains_key(node));
        for (node, life) in owning.iter().filter(|(node, _)| *node != me && !self.nodes.contains_key(*node)) {
            let since = *self.absent.entry(node.clone()).or_insert(now);
            if now.saturating_sub(since) >= after {
                let dead = Presence {
                    incarnation: *life,
                    address: CompactString::default(),
                    http: CompactString::default(),
                    state: State::Dead,
                    load: 0,
                };
                found.push(Suspect { node: node.clone(), dead, expected: Revision(0) });
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(17);

    fn id(name: &str) -> NodeId {
        NodeId::parse(name).unwrap()
    }

    fn says(node: &str, incarnation: u64, state: State, revision: u64) -> Sighting {
        let presence = Presence {
            incarnation: Incarnation(incarnation),
            address: "a:1".into(),
            http: "a:2".into(),
            state,
            load: 3,
        };
        Sighting { node: id(node), presence: Some(presence), revision: Revision(revision) }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn current(sightings: &[Sighting]) -> View {
        let mut view = View::default();
        view.begin();
        for sighting in sightings {
            view.see(sighting.clone(), at(0));
        }
        view.complete();
        view
    }

    fn suspects(view: &mut View, owning: &[(&str, u64)], now: u64) -> Vec<(String, u64, u64)> {
        let owning = owning.iter().map(|(node, life)| (id(node), Incarnation(*life))).collect();
        let suspects = view.suspects(&id("me"), &owning, at(now), AFTER);
        suspects.iter().map(|s| (s.node.to_string(), s.dead.incarnation.0, s.expected.0)).collect()
    }

    #[test]
    fn a_node_is_suspected_once_its_record_kept_one_number_long_enough() {
        let mut view = current(&[says("a", 1, State::Up, 5), says("me", 1, State::Up, 6)]);
        assert_eq!(suspects(&mut view, &[], 16), []);
        assert_eq!(suspects(&mut view, &[], 17), [("a".into(), 1, 5)]);
        view.see(says("a", 1, State::Up, 7), at(17));
        assert_eq!(suspects(&mut view, &[], 33), [], "it renewed");
        view.see(says("a", 1, State::Up, 7), at(33));
        assert_eq!(suspects(&mut view, &[], 34), [("a".into(), 1, 7)], "the same number again is no renewal");
        view.broken();
        assert_eq!(suspects(&mut view, &[], 99), [], "nothing is known without a watch");
    }

    #[test]
    fn an_owner_without_a_presence_is_suspected_after_as_long() {
        let mut view = current(&[]);
        assert_eq!(suspects(&mut view, &[("a", 4), ("me", 1)], 100), []);
        assert_eq!(suspects(&mut view, &[("a", 4)], 116), []);
        assert_eq!(suspects(&mut view, &[("a", 4)], 117), [("a".into(), 4, 0)]);
        view.see(says("a", 4, State::Up, 9), at(117));
        assert_eq!(suspects(&mut view, &[("a", 4)], 118), []);
        view.forget(&id("a"), Revision(8));
        assert!(view.get(&id("a")).is_some());
        view.forget(&id("a"), Revision(9));
        assert_eq!(suspects(&mut view, &[("a", 4)], 119), [], "it is absent anew");
    }

    #[test]
    fn a_life_is_dead_once_declared_so_or_followed_by_another() {
        let mut view = current(&[says("a", 2, State::Up, 1)]);
        assert_eq!(view.standing(&id("a"), Incarnation(1)), Standing::Dead);
        assert_eq!(view.standing(&id("a"), Incarnation(2)), Standing::Live);
        assert_eq!(view.standing(&id("a"), Incarnation(3)), Standing::Unknown, "the watch is behind");
        assert_eq!(view.standing(&id("b"), Incarnation(1)), Standing::Unknown);
        view.see(says("a", 2, State::Dead, 2), at(1));
        view.see(says("a", 2, State::Up, 1), at(1));
        assert_eq!(view.standing(&id("a"), Incarnation(2)), Standing::Dead, "what is older changes nothing");
        assert_eq!(suspects(&mut view, &[("a", 2)], 99), []);
        assert_eq!(suspects(&mut view, &[("a", 3)], 99), [("a".into(), 3, 2)], "a life of which nothing is heard");
    }

    #[test]
    fn what_a_new_watch_does_not_show_is_gone() {
        let mut view =
            current(&[says("a", 1, State::Up, 1), says("b", 1, State::Up, 2), says("c", 1, State::Draining, 3)]);
        assert_eq!(view.up().map(NodeId::as_str).collect::<Vec<_>>(), ["a", "b"]);
        view.begin();
        assert!(!view.is_current());
        view.see(says("b", 1, State::Up, 2), at(5));
        view.complete();
        assert_eq!(view.iter().map(|(node, _)| node.as_str()).collect::<Vec<_>>(), ["b"]);
        assert_eq!(view.silence(&id("b"), at(7)), Some(at(7)), "its number is as old as it was");
        view.see(Sighting { node: id("b"), presence: None, revision: Revision(4) }, at(8));
        assert_eq!(view.up().count(), 0);
    }
}
