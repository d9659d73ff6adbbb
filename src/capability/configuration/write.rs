//! Changing configuration, and taking a change back.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{
    Change, Configuration, FORMAT, KEY_BYTES_MAX, KEYS_AT_ONCE_MAX, KEYS_MAX, METADATA_BYTES_MAX, VALUE_BYTES_MAX,
    VERSIONS_KEPT, Value, page,
    read::{decode, value},
    undo_page,
};
use crate::capability::check_text;
use crate::twin::{
    Needs, Rejection, from_bytes,
    part::{Bytes, PartTurn, Request, Ruling},
    service::{Json, schema},
    to_bytes,
};

/// What happens to one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// The key.
    pub key: CompactString,
    /// Its value from now on; `None` removes the key.
    pub value: Option<String>,
    /// Its metadata from now on, by name; as it was if `None`.
    pub metadata: Option<Vec<(CompactString, String)>>,
    /// What its values must be from now on; as it was if `None`.
    pub schema: Option<Json>,
}

/// Changes some keys in one commit, all or none; answers with the version that makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Put {
    /// The edits; a key at most once.
    pub edits: Vec<Edit>,
    /// The version the caller saw last.
    pub if_version: Option<u64>,
}

/// What a version replaced: keys with the bytes of their pages before.
type Undo = Vec<(CompactString, Option<Bytes>)>;

impl Edit {
    fn check(&self) -> Result<(), Rejection> {
        check_text("a key of the configuration", &self.key, KEY_BYTES_MAX)?;
        Rejection::within("configuration value bytes", VALUE_BYTES_MAX, self.value.as_ref().map_or(0, String::len))?;
        let metadata = self.metadata.iter().flatten().map(|(name, value)| name.len() + value.len()).sum();
        Rejection::within("configuration metadata bytes", METADATA_BYTES_MAX, metadata)?;
        if let Some(stated) = &self.schema {
            schema::check_definition(&stated.value())?;
        }
        Ok(())
    }

    /// The value that this leaves.
    fn over(&self, before: Option<&Value>, value: &str, version: u64) -> Result<Value, Rejection> {
        let kept = |value: &Value| (value.metadata.clone(), value.schema.clone());
        let (metadata, schema) = before.map(kept).unwrap_or_default();
        let schema = self.schema.clone().or(schema);
        if let Some(schema) = &schema {
            let parsed: Json = Json::parse(value).map_err(|_| {
                Rejection::invalid(format!(
                    "'{}' has a schema, so its value must be JSON; this is not: {value:.80}",
                    self.key
                ))
            })?;
            let hold = schema::check(&schema.value(), &parsed.value());
            hold.map_err(|why| Rejection::invalid(format!("'{}': {why}", self.key)))?;
        }
        let mut metadata = self.metadata.clone().unwrap_or(metadata);
        metadata.sort();
        Ok(Value { format: FORMAT, value: value.to_owned(), version, metadata, schema })
    }
}

impl Request for Put {
    type Part = Configuration;
    type Reply = u64;
    const OPERATION: &'static str = "set";
    const NAME: &'static str = "configuration-put/1";
    const CREATES: bool = true;

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        self.edits.iter().for_each(|edit| each(&edit.key, "set"));
    }

    fn needs(&self) -> Needs {
        Needs::Pages(self.edits.iter().map(|edit| page(&edit.key)).collect())
    }

    fn heap_bytes(&self) -> usize {
        let bytes = |edit: &Edit| size_of_val(edit) + edit.key.len() + edit.value.as_ref().map_or(0, String::len);
        self.edits.iter().map(bytes).sum()
    }

    fn decide(&self, configuration: &Configuration, turn: &PartTurn<'_>) -> Result<Ruling<Change, u64>, Rejection> {
        check_version(configuration, self.if_version)?;
        Rejection::within("configuration keys at once", KEYS_AT_ONCE_MAX, self.edits.len())?;
        let mut writing = Writing::new(configuration, None);
        for (at, edit) in self.edits.iter().enumerate() {
            edit.check()?;
            if self.edits[..at].iter().any(|other| other.key == edit.key) {
                return Err(Rejection::invalid(format!("'{}' is there twice", edit.key)));
            }
            let before = value(turn, &edit.key)?;
            let after = match &edit.value {
                Some(value) => Some(edit.over(before.as_ref(), value, writing.version)?),
                None => None,
            };
            writing.write(&edit.key, before.as_ref(), after.as_ref());
        }
        writing.ruling(configuration)
    }
}

fn check_version(configuration: &Configuration, expected: Option<u64>) -> Result<(), Rejection> {
    match expected.filter(|expected| *expected != configuration.version) {
        Some(expected) => Err(Rejection::Precondition { expected, found: configuration.version }),
        None => Ok(()),
    }
}

/// A version in the making.
struct Writing {
    version: u64,
    keys: Vec<CompactString>,
    removed: Vec<CompactString>,
    added: u64,
    restores: Option<u64>,
    undo: Undo,
    pages: Vec<(String, Option<Vec<u8>>)>,
}

impl Writing {
    fn new(configuration: &Configuration, restores: Option<u64>) -> Self {
        let (keys, removed, undo, pages) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { version: configuration.version + 1, keys, removed, added: 0, restores, undo, pages }
    }

    fn write(&mut self, key: &CompactString, before: Option<&Value>, after: Option<&Value>) {
        match (before, after) {
            (None, None) => return,
            (Some(before), Some(after)) if (Value { version: before.version, ..after.clone() }) == *before => return,
            (Some(_), Some(_)) => self.keys.push(key.clone()),
            (None, Some(_)) => {
                self.keys.push(key.clone());
                self.added += 1;
            }
            (Some(_), None) => self.removed.push(key.clone()),
        }
        self.undo.push((key.clone(), before.map(|before| Bytes(to_bytes(before)))));
        self.pages.push((page(key), after.map(to_bytes)));
    }

    fn ruling(self, configuration: &Configuration) -> Result<Ruling<Change, u64>, Rejection> {
        if self.undo.is_empty() {
            return Ok(Ruling::new(configuration.version));
        }
        let keys = configuration.keys + self.added;
        if self.added > 0 && keys > KEYS_MAX {
            return Err(Rejection::Limit { limit: "configuration keys".into(), max: KEYS_MAX, actual: keys });
        }
        let undo = to_bytes(&self.undo);
        // What is replaced by much at once cannot be taken back; everything else can.
        let undo = (undo.len() <= crate::model::limits::PAGE_BYTES_MAX).then_some(undo);
        let mut ruling = Ruling::new(self.version).page(&undo_page(self.version), undo);
        if let Some(old) = self.version.checked_sub(VERSIONS_KEPT).filter(|old| *old > 0) {
            ruling = ruling.page(&undo_page(old), None);
        }
        for (name, value) in self.pages {
            ruling = ruling.page(&name, value);
        }
        let Self { version, keys, removed, added, restores, .. } = self;
        Ok(ruling.change(Change::Put { version, keys, removed, added, restores }))
    }
}

/// Reads which keys a version changed, while what it replaced is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changed {
    /// The version.
    pub version: u64,
}

impl Request for Changed {
    type Part = Configuration;
    type Reply = Vec<CompactString>;
    const OPERATION: &'static str = "get";
    const NAME: &'static str = "configuration-changed/1";

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each("", "get");
    }

    fn needs(&self) -> Needs {
        Needs::Pages(vec![undo_page(self.version)])
    }

    fn decide(&self, _: &Configuration, turn: &PartTurn<'_>) -> Result<Ruling<Change, Self::Reply>, Rejection> {
        Ok(Ruling::new(undo(turn, self.version)?.into_iter().map(|(key, _)| key).collect()))
    }
}

fn undo(turn: &PartTurn<'_>, version: u64) -> Result<Undo, Rejection> {
    let undo = turn.page(&undo_page(version)).and_then(|bytes| from_bytes(bytes).ok());
    undo.ok_or_else(|| {
        Rejection::not_found(format!("what version {version} replaced (the last {VERSIONS_KEPT} are kept)"))
    })
}

/// Takes the newest version back; answers with the version that makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// The newest version, which is taken back.
    pub version: u64,
    /// Its keys, as [`Changed`] says.
    pub keys: Vec<CompactString>,
}

impl Request for Rollback {
    type Part = Configuration;
    type Reply = u64;
    const OPERATION: &'static str = "set";
    const NAME: &'static str = "configuration-rollback/1";

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each("", "set");
    }

    fn needs(&self) -> Needs {
        let keys = self.keys.iter().map(|key| page(key));
        Needs::Pages(keys.chain([undo_page(self.version)]).collect())
    }

    fn decide(&self, configuration: &Configuration, turn: &PartTurn<'_>) -> Result<Ruling<Change, u64>, Rejection> {
        check_version(configuration, Some(self.version))?;
        let undo = undo(turn, self.version)?;
        if let Some((key, _)) = undo.iter().find(|(key, _)| !self.keys.contains(key)) {
            return Err(Rejection::invalid(format!(
                "version {} changed '{key}', too; name each of its keys",
                self.version
            )));
        }
        let mut writing = Writing::new(configuration, Some(self.version - 1));
        for (key, before) in undo {
            let now = value(turn, &key)?;
            let after = match before {
                Some(bytes) => Some(Value { version: writing.version, ..decode(&bytes.0)? }),
                None => None,
            };
            writing.write(&key, now.as_ref(), after.as_ref());
        }
        writing.ruling(configuration)
    }
}
