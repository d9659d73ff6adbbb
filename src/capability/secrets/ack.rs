//! Which instance uses which version, and the end of a rotation.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{Change, Secret, Secrets, moved_page, page};
use crate::{
    capability::check_text,
    twin::{
        Needs, Rejection, from_bytes,
        part::{PartTurn, Request, Ruling},
        service::limits::INSTANCE_ID_BYTES_MAX,
        to_bytes,
    },
};

/// Most instances remembered for a secret; those that spoke first are forgotten.
const INSTANCES_MAX: usize = 256;

/// Which instance uses which version, oldest word first.
type Moved = Vec<(CompactString, u64)>;

/// Says that an instance uses a version of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ack {
    /// The secret.
    pub secret: CompactString,
    /// Who.
    pub instance: CompactString,
    /// The version.
    pub version: u64,
}

pub(super) fn moved(turn: &PartTurn<'_>, secret: &str) -> Moved {
    turn.page(&moved_page(secret)).and_then(|bytes| from_bytes(bytes).ok()).unwrap_or_default()
}

/// Revokes the version before if nothing speaks for it any more.
fn conclude<R>(
    mut ruling: Ruling<Change, R>,
    secret: &Secret,
    moved: &Moved,
    turn: &PartTurn<'_>,
) -> Ruling<Change, R> {
    let Some((version, until)) = secret.previous else { return ruling };
    let is_behind = |instance: &&str| !moved.iter().any(|(known, used)| known == instance && *used >= secret.version);
    let stragglers: Vec<CompactString> = turn.instances_up().into_iter().filter(is_behind).map(Into::into).collect();
    // With nobody there, nobody has moved on: whoever comes next may still hold the version before.
    let is_over = turn.now >= until || stragglers.is_empty() && !moved.is_empty();
    if is_over {
        ruling = ruling.page(&page(&secret.name, version), None);
        ruling = ruling.change(Change::Revoked { secret: secret.name.clone(), version, stragglers });
    }
    ruling
}

impl Request for Ack {
    type Part = Secrets;
    type Reply = ();
    const OPERATION: &'static str = "ack";
    const NAME: &'static str = "secrets-ack/1";

    fn speaks_for(&self) -> Option<&str> {
        Some(&self.instance)
    }

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each(&self.secret, "get");
    }

    fn needs(&self) -> Needs {
        Needs::Pages(vec![moved_page(&self.secret)])
    }

    fn decide(&self, secrets: &Secrets, turn: &PartTurn<'_>) -> Result<Ruling<Change, ()>, Rejection> {
        let secret = secrets.secret(&self.secret)?;
        check_text("an instance", &self.instance, INSTANCE_ID_BYTES_MAX)?;
        if self.version == 0 || self.version > secret.version {
            let newest = secret.version;
            return Err(Rejection::conflict(format!("there is no version {} (the newest is {newest})", self.version)));
        }
        let mut moved = moved(turn, &secret.name);
        if moved.contains(&(self.instance.clone(), self.version)) {
            return Ok(Ruling::new(()));
        }
        moved.retain(|(instance, _)| *instance != self.instance);
        if moved.len() >= INSTANCES_MAX {
            moved.remove(0);
        }
        moved.push((self.instance.clone(), self.version));
        let (secret_name, instance, version) = (secret.name.clone(), self.instance.clone(), self.version);
        let ruling = Ruling::new(()).page(&moved_page(&secret.name), Some(to_bytes(&moved))).change(Change::Moved {
            secret: secret_name,
            instance,
            version,
        });
        Ok(conclude(ruling, secret, &moved, turn))
    }
}

/// Looks whether a rotation is over; the twin tells it to itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conclude {
    /// The secret.
    pub secret: CompactString,
}

impl Request for Conclude {
    type Part = Secrets;
    type Reply = ();
    const OPERATION: &'static str = "conclude";
    const NAME: &'static str = "secrets-conclude/1";
    const INTERNAL: bool = true;

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each(&self.secret, "conclude");
    }

    fn needs(&self) -> Needs {
        Needs::Pages(vec![moved_page(&self.secret)])
    }

    fn decide(&self, secrets: &Secrets, turn: &PartTurn<'_>) -> Result<Ruling<Change, ()>, Rejection> {
        let Ok(secret) = secrets.secret(&self.secret) else { return Ok(Ruling::new(())) };
        Ok(conclude(Ruling::new(()), secret, &moved(turn, &secret.name), turn))
    }
}
