//! New versions, and the end of a secret.

use std::time::Duration;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{Change, NAME_BYTES_MAX, SEALED_BYTES_MAX, SECRETS_MAX, Secrets, moved_page, page};
use crate::capability::check_name;
use crate::twin::{
    Rejection,
    part::{Bytes, PartTurn, Request, Ruling},
};

/// What becomes of the version before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rotation {
    /// It is revoked at once.
    #[default]
    AtOnce,
    /// It stays valid until every live instance moved on, or so many seconds are over.
    Overlap {
        /// The seconds.
        seconds: u64,
    },
}

/// Sets a new version of a secret; answers `false` if somebody else was faster, so that it was sealed for nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// Its name.
    pub secret: CompactString,
    /// The version; one more than the newest.
    pub version: u64,
    /// The value, sealed for this version.
    pub value: Bytes,
    /// The twin's key that it is sealed with, wrapped.
    pub key: Bytes,
    /// What becomes of the version before.
    pub rotation: Rotation,
}

impl Request for Put {
    type Part = Secrets;
    type Reply = bool;
    const OPERATION: &'static str = "set";
    const NAME: &'static str = "secrets-put/1";
    const CREATES: bool = true;
    const IS_PUBLIC: bool = false;

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each(&self.secret, "set");
    }

    fn heap_bytes(&self) -> usize {
        self.value.0.len() + self.key.0.len() + self.secret.len()
    }

    fn decide(&self, secrets: &Secrets, turn: &PartTurn<'_>) -> Result<Ruling<Change, bool>, Rejection> {
        let name = &self.secret;
        check_name("the name of a secret", name, NAME_BYTES_MAX)?;
        Rejection::within("sealed bytes of a secret", SEALED_BYTES_MAX, self.value.0.len())?;
        let known = secrets.secrets.iter().find(|known| known.name == *name);
        Rejection::within("secrets", SECRETS_MAX, secrets.secrets.len() + usize::from(known.is_none()))?;
        let newest = known.map_or(0, |known| known.version);
        if self.version != newest + 1 || !(secrets.key.0.is_empty() || secrets.key == self.key) {
            return Ok(Ruling::new(false));
        }
        let overlap_until = match self.rotation {
            Rotation::Overlap { seconds } if known.is_some() => Some(turn.now.after(Duration::from_secs(seconds))),
            Rotation::Overlap { .. } | Rotation::AtOnce => None,
        };
        let mut ruling = Ruling::new(true).page(&page(name, self.version), Some(self.value.0.clone()));
        if secrets.key.0.is_empty() {
            ruling = ruling.change(Change::Keyed { key: self.key.clone() });
        }
        if let Some(known) = known {
            // A rotation within a rotation: the oldest version is over.
            if let Some((older, _)) = known.previous {
                ruling = ruling.page(&page(name, older), None);
            }
            if overlap_until.is_none() {
                ruling = ruling.page(&page(name, known.version), None);
            }
        }
        Ok(ruling.change(Change::Put { secret: name.clone(), version: self.version, overlap_until }))
    }
}

/// Deletes a secret with every version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delete {
    /// Its name.
    pub secret: CompactString,
}

impl Request for Delete {
    type Part = Secrets;
    type Reply = ();
    const OPERATION: &'static str = "delete";
    const NAME: &'static str = "secrets-delete/1";

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each(&self.secret, "delete");
    }

    fn decide(&self, secrets: &Secrets, _: &PartTurn<'_>) -> Result<Ruling<Change, ()>, Rejection> {
        let secret = secrets.secret(&self.secret)?;
        let mut ruling = Ruling::new(()).page(&page(&secret.name, secret.version), None);
        if let Some((previous, _)) = secret.previous {
            ruling = ruling.page(&page(&secret.name, previous), None);
        }
        ruling = ruling.page(&moved_page(&secret.name), None);
        Ok(ruling.change(Change::Deleted { secret: secret.name.clone() }))
    }
}
