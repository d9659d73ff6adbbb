//! The parts a service twin hosts: by name, as its record holds them, and the one message that reaches them.

use std::{fmt, sync::OnceLock};

use compact_str::CompactString;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Change, Core, Draft, Service, access::Denial, view::Presence};
use crate::{
    model::{Lane, Timestamp, scope::Want},
    twin::{
        Changes, Decide, Decision, Effect, Event, Message, Needs, PageWrite, Rejection, Turn, Wire,
        part::{Around, Bytes, Hosted, Part, PartKind, PartTurn, Request, Ruling, needs_within, within},
        to_bytes,
    },
};

static KINDS: OnceLock<Vec<PartKind>> = OnceLock::new();

/// Pages of a removed part that are deleted in one commit.
const RETIRED_AT_ONCE: usize = 32;
/// After so long without an end the pages of removed parts are swept again.
const RETIRE_AGAIN: std::time::Duration = std::time::Duration::from_secs(30);

/// States the parts that service twins of this process host. The first list counts; it is stated before the first twin.
pub fn host(kinds: Vec<PartKind>) {
    KINDS.get_or_init(|| kinds);
}

/// The parts that service twins of this process host.
pub fn hosted() -> &'static [PartKind] {
    KINDS.get().map_or(&[], Vec::as_slice)
}

fn kind(name: &str) -> Option<&'static PartKind> {
    hosted().iter().find(|kind| kind.name == name)
}

/// A part's change in JSON, its kind as the one key.
pub fn shown(part: &str, schema: u16, change: &Bytes) -> Option<serde_json::Value> {
    (kind(part)?.show)(schema, &change.0)
}

/// Every part of one twin that was ever told anything.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Parts {
    sections: Vec<Section>,
    /// Parts of a removed life whose pages are still there.
    retiring: Vec<CompactString>,
    /// When their sweep is looked after again.
    retire_at: Timestamp,
}

struct Section {
    name: CompactString,
    held: Held,
}

enum Held {
    Live(Box<dyn Hosted>),
    /// Of a part or schema that this build does not know.
    Kept {
        schema: u16,
        bytes: Bytes,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename = "Section")]
struct Stored {
    name: CompactString,
    schema: u16,
    state: Bytes,
}

impl Serialize for Section {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (schema, state) = match &self.held {
            Held::Live(part) => (kind(&self.name).map_or(0, |kind| kind.schema), Bytes(part.encode())),
            Held::Kept { schema, bytes } => (*schema, bytes.clone()),
        };
        Stored { name: self.name.clone(), schema, state }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Section {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Stored { name, schema, state } = Stored::deserialize(deserializer)?;
        let held = match kind(&name).filter(|kind| kind.schema >= schema) {
            Some(kind) => Held::Live((kind.decode)(schema, &state.0).map_err(serde::de::Error::custom)?),
            None => Held::Kept { schema, bytes: state },
        };
        Ok(Self { name, held })
    }
}

impl fmt::Debug for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Section({})", self.name)
    }
}

impl Parts {
    /// The part, if it was ever told anything.
    fn part<P: Part>(&self) -> Result<Option<&P>, Rejection> {
        let unknown = || Rejection::Unsupported { what: format!("the capability '{}'", P::NAME).into() };
        if kind(P::NAME).is_none() {
            return Err(unknown());
        }
        let Some(section) = self.sections.iter().find(|section| section.name == P::NAME) else { return Ok(None) };
        match &section.held {
            Held::Live(part) => Ok(part.part::<P>()),
            Held::Kept { .. } => Err(unknown()),
        }
    }

    /// Installs what is about parts.
    #[expect(clippy::wildcard_enum_match_arm, reason = "other changes have other readers")]
    pub(super) fn follow(&mut self, change: &Change, at: Timestamp) {
        match change {
            Change::Part { part, schema, change } => self.apply(part, *schema, change, at),
            Change::Removed => self.retire(at),
            Change::PartsRetiring => self.retire_at = at.after(RETIRE_AGAIN),
            Change::PartRetired { part } => self.retiring.retain(|retiring| retiring != part),
            _ => {}
        }
    }

    /// Installs a part's change; that of an unknown part has no effect here.
    fn apply(&mut self, name: &str, schema: u16, change: &Bytes, at: Timestamp) {
        let known = self.sections.iter().position(|section| section.name == name);
        let index = known.unwrap_or(self.sections.len());
        if known.is_none() {
            let Some(kind) = kind(name) else { return };
            self.sections.push(Section { name: name.into(), held: Held::Live((kind.create)()) });
        }
        match &mut self.sections[index].held {
            Held::Live(part) => part.apply(schema, &change.0, at),
            Held::Kept { .. } => {}
        }
    }

    pub(super) fn event(&self, name: &str, schema: u16, change: &Bytes) -> Option<Event> {
        match &self.sections.iter().find(|section| section.name == name)?.held {
            Held::Live(part) => part.event(schema, &change.0),
            Held::Kept { .. } => None,
        }
    }

    /// The twin was removed: nothing of its parts is shown any more, their pages are to be swept.
    fn retire(&mut self, at: Timestamp) {
        for section in std::mem::take(&mut self.sections) {
            if !self.retiring.contains(&section.name) {
                self.retiring.push(section.name);
            }
        }
        self.retire_at = at;
    }

    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        let parts = self.sections.iter().filter_map(|section| match &section.held {
            Held::Live(part) => part.wake_at(),
            Held::Kept { .. } => None,
        });
        parts.chain((!self.retiring.is_empty()).then_some(self.retire_at)).min()
    }

    /// What time does to the parts.
    pub(super) fn wake(
        &self,
        turn: &Turn<'_>,
        core: &Core,
        mut decision: Decision<Change, ()>,
    ) -> Decision<Change, ()> {
        for section in &self.sections {
            let (Held::Live(part), Some(kind)) = (&section.held, kind(&section.name)) else { continue };
            if part.wake_at().is_some_and(|due| due <= turn.now) {
                let ruling = part.wake(&PartTurn::new(turn, kind.name, core));
                decision = install(decision, kind.name, kind.schema, ruling.changes, ruling.pages, ruling.effects);
            }
        }
        if !self.retiring.is_empty() && self.retire_at <= turn.now {
            decision = decision.change(Change::PartsRetiring);
            for part in &self.retiring {
                decision = decision.effect(Effect::tell(turn.key.clone(), Retire { part: part.clone() }));
            }
        }
        decision
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let bytes = |section: &Section| match &section.held {
            Held::Live(part) => part.heap_bytes(),
            Held::Kept { bytes, .. } => bytes.0.len(),
        };
        self.sections.iter().map(|section| size_of::<Section>() + bytes(section)).sum()
    }
}

impl Around for Core {
    fn instances_up(&self) -> Vec<&str> {
        let up = self.instances.iter().filter(|instance| instance.presence == Presence::Up);
        up.map(|instance| instance.id.as_str()).collect()
    }
}

/// Puts a part's ruling into a decision of its twin.
fn install<R>(
    mut decision: Decision<Change, R>,
    part: &'static str,
    schema: u16,
    changes: Changes<Bytes>,
    pages: Vec<PageWrite>,
    effects: Vec<Effect>,
) -> Decision<Change, R> {
    let changes = changes.into_iter().map(|change| Change::Part { part: part.into(), schema, change });
    decision = decision.changes(changes);
    for page in pages {
        decision = decision.page(&within(part, &page.name), page.value);
    }
    for effect in effects {
        decision = decision.effect(effect);
    }
    decision
}

/// A capability request: asked of a twin, ruled on by its grants, decided by its part.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "R: Request")]
pub struct Use<R>(pub R);

impl<R: Request> Message for Use<R> {
    type Twin = Service;
    type Reply = Result<R::Reply, Denial>;
    const LANE: Lane = R::LANE;

    fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }

    fn needs(&self) -> Needs {
        needs_within(R::Part::NAME, self.0.needs())
    }
}

impl<R: Request> Wire for Use<R> {
    const NAME: &'static str = R::NAME;
}

impl<R: Request> Decide<Use<R>> for Service {
    fn decide(
        &self,
        Use(request): &Use<R>,
        turn: &Turn<'_>,
    ) -> Result<Decision<Change, Result<R::Reply, Denial>>, Rejection> {
        let (name, schema) = (R::Part::NAME, R::Part::SCHEMA);
        if self.core.removed || !R::CREATES {
            self.existing(turn)?;
        }
        if self.parts.retiring.iter().any(|retiring| retiring == name) {
            return Err(Rejection::conflict(
                "what an earlier twin of this name kept is still being removed; try again in a moment",
            ));
        }
        if !R::INTERNAL {
            self.meter.allows(turn.now)?;
        }
        let mut denial = None;
        request.wants(&mut |name, operation| {
            if denial.is_none() {
                let want = Want { capability: R::Part::NAME, name, operation };
                denial = self.authorise(turn, &want, R::INTERNAL).err();
            }
        });
        if let Some(denial) = denial {
            return Ok(self.denied(turn, denial));
        }
        let part_turn = PartTurn::new(turn, name, &self.core);
        let ruling = match self.parts.part::<R::Part>()? {
            Some(part) => request.decide(part, &part_turn)?,
            None => request.decide(&R::Part::default(), &part_turn)?,
        };
        let Ruling { changes, pages, effects, reply } = ruling;
        let mut decision = Decision::new(Ok(reply));
        let is_nothing = changes.is_empty() && pages.is_empty() && effects.is_empty();
        if !self.core.exists && !is_nothing {
            decision = decision.changes(Draft::arrive(self, turn).settled());
        }
        let changes = changes.iter().map(|change| Bytes(to_bytes(change))).collect();
        Ok(install(decision, name, schema, changes, pages, effects))
    }

    fn observe(&mut self, _: &Use<R>, turn: &Turn<'_>) -> Changes<Change> {
        if !R::INTERNAL {
            self.meter.count(turn.now);
        }
        Changes::new()
    }
}

/// Deletes pages that a part of a removed twin left; the twin tells it to itself until none is left.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Retire {
    /// The part.
    pub part: CompactString,
}

impl Message for Retire {
    type Twin = Service;
    type Reply = ();

    fn heap_bytes(&self) -> usize {
        self.part.len()
    }

    fn needs(&self) -> Needs {
        Needs::Prefix { prefix: within(&self.part, ""), after: None, limit: RETIRED_AT_ONCE }
    }
}

impl Wire for Retire {
    const NAME: &'static str = "retire/1";
}

impl Decide<Retire> for Service {
    fn decide(&self, message: &Retire, turn: &Turn<'_>) -> Result<Decision<Change, ()>, Rejection> {
        if !self.parts.retiring.contains(&message.part) {
            return Ok(Decision::new(()));
        }
        let pages = turn.prefix(&within(&message.part, ""));
        let mut decision = pages.iter().fold(Decision::new(()), |decision, (name, _)| decision.page(name, None));
        decision = if pages.len() < RETIRED_AT_ONCE {
            decision.change(Change::PartRetired { part: message.part.clone() })
        } else {
            decision.effect(Effect::tell(turn.key.clone(), message.clone()))
        };
        Ok(decision)
    }
}
