//! Reading configuration.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{Change, Configuration, FORMAT, KEYS, KEYS_MAX, Value, page};
use crate::twin::{
    Needs, Rejection, from_bytes,
    part::{PartTurn, Request, Ruling},
    service::Json,
};

/// Reads some keys, or all of them; one that is not there is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Get {
    /// The keys, at most [`super::KEYS_AT_ONCE_MAX`]; all if empty.
    #[serde(default)]
    pub keys: Vec<CompactString>,
}

/// One key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The key.
    pub key: CompactString,
    /// Its value.
    pub value: String,
    /// The version of the configuration in which it changed last.
    pub version: u64,
    /// Its metadata, by name.
    pub metadata: Vec<(CompactString, String)>,
    /// What a value must be.
    pub schema: Option<Json>,
}

pub(super) fn decode(bytes: &[u8]) -> Result<Value, Rejection> {
    match from_bytes::<Value>(bytes) {
        Ok(value) if value.format == FORMAT => Ok(value),
        Ok(_) | Err(_) => Err(Rejection::conflict(
            "a value of the configuration cannot be read; it was damaged or written by a later version",
        )),
    }
}

pub(super) fn value(turn: &PartTurn<'_>, key: &str) -> Result<Option<Value>, Rejection> {
    turn.page(&page(key)).map(decode).transpose()
}

impl Request for Get {
    type Part = Configuration;
    type Reply = (u64, Vec<Item>);
    const OPERATION: &'static str = "get";
    const NAME: &'static str = "configuration-get/1";
    const CREATES: bool = true;

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        if self.keys.is_empty() {
            each("", "get");
        }
        self.keys.iter().for_each(|key| each(key, "get"));
    }

    fn needs(&self) -> Needs {
        if self.keys.is_empty() {
            let limit = usize::try_from(KEYS_MAX).unwrap_or(usize::MAX);
            return Needs::Prefix { prefix: KEYS.to_owned(), after: None, limit };
        }
        Needs::Pages(self.keys.iter().map(|key| page(key)).collect())
    }

    fn heap_bytes(&self) -> usize {
        self.keys.iter().map(|key| size_of_val(key) + key.len()).sum()
    }

    fn decide(
        &self,
        configuration: &Configuration,
        turn: &PartTurn<'_>,
    ) -> Result<Ruling<Change, Self::Reply>, Rejection> {
        let item = |key: &str, value: Value| Item {
            key: key.into(),
            value: value.value,
            version: value.version,
            metadata: value.metadata,
            schema: value.schema,
        };
        let mut items = Vec::new();
        if self.keys.is_empty() {
            for (name, bytes) in turn.prefix(KEYS) {
                items.push(item(name.strip_prefix(KEYS).unwrap_or(name), decode(bytes)?));
            }
        }
        for key in &self.keys {
            items.extend(value(turn, key)?.map(|value| item(key, value)));
        }
        Ok(Ruling::new((configuration.version, items)))
    }
}
