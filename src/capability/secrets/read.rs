//! Reading secrets, sealed.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{Change, Secrets, moved_page, page};
use crate::{
    model::Timestamp,
    twin::{
        Needs, Rejection,
        part::{Bytes, PartTurn, Request, Ruling},
    },
};

/// Asks what a new version has to be sealed with; nothing is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepare {
    /// The secret.
    pub secret: CompactString,
    /// Whether a version is to be read, or a new one made.
    pub reads: bool,
}

/// What a version is sealed with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// The twin's key, wrapped; empty if it has none yet.
    pub key: Bytes,
    /// The newest version; 0 if there is none.
    pub version: u64,
}

impl Request for Prepare {
    type Part = Secrets;
    type Reply = Prepared;
    const OPERATION: &'static str = "set";
    const NAME: &'static str = "secrets-prepare/1";
    const CREATES: bool = true;
    const IS_PUBLIC: bool = false;

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each(&self.secret, if self.reads { "get" } else { "set" });
    }

    fn decide(&self, secrets: &Secrets, _: &PartTurn<'_>) -> Result<Ruling<Change, Prepared>, Rejection> {
        let version = secrets.secret(&self.secret).map_or(0, |secret| secret.version);
        Ok(Ruling::new(Prepared { key: secrets.key.clone(), version }))
    }
}

/// Reads a version of a secret; the read is journaled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Get {
    /// The secret.
    pub secret: CompactString,
    /// The version: the newest one, or the one before while it is valid.
    pub version: u64,
}

/// A sealed version of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The secret.
    pub secret: CompactString,
    /// The version.
    pub version: u64,
    /// The value, sealed.
    pub value: Bytes,
    /// The twin's key, wrapped.
    pub key: Bytes,
}

impl Request for Get {
    type Part = Secrets;
    type Reply = Sealed;
    const OPERATION: &'static str = "get";
    const NAME: &'static str = "secrets-get/1";
    const CREATES: bool = true;
    const IS_PUBLIC: bool = false;

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each(&self.secret, "get");
    }

    fn needs(&self) -> Needs {
        Needs::Pages(vec![page(&self.secret, self.version)])
    }

    fn decide(&self, secrets: &Secrets, turn: &PartTurn<'_>) -> Result<Ruling<Change, Sealed>, Rejection> {
        let secret = secrets.secret(&self.secret)?;
        let version = self.version;
        let before = secret.previous.filter(|(previous, until)| *previous == version && turn.now < *until);
        let value = turn.page(&page(&self.secret, version)).filter(|_| version == secret.version || before.is_some());
        let Some(value) = value else {
            let newest = secret.version;
            return Err(Rejection::not_found(format!(
                "version {version} of secret '{}' (the newest is {newest})",
                secret.name
            )));
        };
        let (secret, value) = (secret.name.clone(), Bytes(value.to_vec()));
        let read = Change::Read { secret: secret.clone(), version };
        Ok(Ruling::new(Sealed { secret, version, value, key: secrets.key.clone() }).change(read))
    }
}

/// Reads the newest version of a secret for the node to compare it with a value that somebody sets, who may read it,
/// too. What was read stays in the node, so this is no read that is journaled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// The secret.
    pub secret: CompactString,
    /// The newest version.
    pub version: u64,
}

impl Request for Compare {
    type Part = Secrets;
    type Reply = Option<Sealed>;
    const OPERATION: &'static str = "set";
    const NAME: &'static str = "secrets-compare/1";
    const CREATES: bool = true;
    const IS_PUBLIC: bool = false;

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each(&self.secret, "set");
        each(&self.secret, "get");
    }

    fn needs(&self) -> Needs {
        Needs::Pages(vec![page(&self.secret, self.version)])
    }

    fn decide(&self, secrets: &Secrets, turn: &PartTurn<'_>) -> Result<Ruling<Change, Self::Reply>, Rejection> {
        let newest = secrets.secret(&self.secret).ok().filter(|secret| secret.version == self.version);
        let value = newest.and_then(|_| turn.page(&page(&self.secret, self.version)));
        Ok(Ruling::new(value.map(|value| Sealed {
            secret: self.secret.clone(),
            version: self.version,
            value: Bytes(value.to_vec()),
            key: secrets.key.clone(),
        })))
    }
}

/// Lists secrets, without their values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetSecrets {
    /// Only this one, with who uses which version of it.
    pub secret: Option<CompactString>,
}

/// Where a secret stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretView {
    /// Its name.
    pub secret: CompactString,
    /// The newest version.
    pub version: u64,
    /// When that was set.
    pub changed_at: Timestamp,
    /// The version before, while it is valid.
    pub previous: Option<u64>,
    /// Until when it is valid at the latest.
    pub previous_until: Option<Timestamp>,
    /// Which instance said that it uses which version; only if one secret was asked for.
    pub instances: Vec<(CompactString, u64)>,
}

impl Request for GetSecrets {
    type Part = Secrets;
    type Reply = Vec<SecretView>;
    const OPERATION: &'static str = "list";
    const NAME: &'static str = "secrets-list/1";
    const CREATES: bool = true;

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each(self.secret.as_deref().unwrap_or_default(), "list");
    }

    fn needs(&self) -> Needs {
        self.secret.as_ref().map_or(Needs::Nothing, |secret| Needs::Pages(vec![moved_page(secret)]))
    }

    fn decide(&self, secrets: &Secrets, turn: &PartTurn<'_>) -> Result<Ruling<Change, Self::Reply>, Rejection> {
        if let Some(secret) = &self.secret {
            secrets.secret(secret)?;
        }
        let chosen =
            secrets.secrets.iter().filter(|known| self.secret.as_ref().is_none_or(|secret| known.name == *secret));
        let view = chosen.map(|secret| SecretView {
            secret: secret.name.clone(),
            version: secret.version,
            changed_at: secret.changed_at,
            previous: secret.previous.map(|(version, _)| version),
            previous_until: secret.previous.map(|(_, until)| until),
            instances: if self.secret.is_some() { super::ack::moved(turn, &secret.name) } else { Vec::new() },
        });
        Ok(Ruling::new(view.collect()))
    }
}
