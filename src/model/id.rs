//! Who: a twin's key and a service's id, parsed once.

use std::{borrow::Borrow, fmt, ops::Deref, str::FromStr};

use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::limits::KEY_BYTES_MAX;

/// A twin's key within its kind: 1 to [`KEY_BYTES_MAX`] bytes of UTF-8 without control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "CompactString", into = "CompactString")]
pub struct Key(CompactString);

/// Why a text is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// Nothing was given.
    #[error("a key cannot be empty")]
    Empty,
    /// Too long.
    #[error("a key has at most {KEY_BYTES_MAX} bytes, this one has {bytes}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// A control character.
    #[error("a key has no control characters; found one at byte {at}")]
    Control {
        /// Where it is.
        at: usize,
    },
    /// Not `namespace/name`.
    #[error("a service id is 'namespace/name' or 'name', both parts non-empty and without a further '/'")]
    NotAService,
}

impl Key {
    /// Parses a key.
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        Self::check(text)?;
        Ok(Self(CompactString::new(text)))
    }

    /// Checks a key without building one.
    pub fn check(text: &str) -> Result<(), InvalidKey> {
        if text.is_empty() {
            return Err(InvalidKey::Empty);
        }
        if text.len() > KEY_BYTES_MAX {
            return Err(InvalidKey::TooLong { bytes: text.len() });
        }
        // Almost every key is plain ASCII.
        if text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(());
        }
        match text.char_indices().find(|(_, c)| c.is_control()) {
            Some((at, _)) => Err(InvalidKey::Control { at }),
            None => Ok(()),
        }
    }

    /// The stable hash that places a key: XXH3-64 of its bytes.
    pub fn hash_of(text: &str) -> u64 {
        xxh3_64(text.as_bytes())
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Key {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Key {
    type Err = InvalidKey;
    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        Self::parse(text)
    }
}

impl TryFrom<CompactString> for Key {
    type Error = InvalidKey;
    fn try_from(text: CompactString) -> Result<Self, InvalidKey> {
        Self::check(&text)?;
        Ok(Self(text))
    }
}

impl From<Key> for CompactString {
    fn from(key: Key) -> Self {
        key.0
    }
}

/// The key of a service twin: `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "CompactString", into = "CompactString")]
pub struct ServiceId(Key);

impl ServiceId {
    /// The namespace of a service that states none.
    pub const DEFAULT_NAMESPACE: &'static str = "default";

    /// Builds an id from `service.namespace` (empty means `default`) and `service.name`.
    pub fn new(namespace: &str, name: &str) -> Result<Self, InvalidKey> {
        let namespace = if namespace.is_empty() { Self::DEFAULT_NAMESPACE } else { namespace };
        if name.is_empty() || name.contains('/') || namespace.contains('/') {
            return Err(InvalidKey::NotAService);
        }
        Ok(Self(Key::parse(&format!("{namespace}/{name}"))?))
    }

    /// Parses `namespace/name`, or `name` alone in the default namespace.
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        match text.split_once('/') {
            Some(("", _)) => Err(InvalidKey::NotAService),
            Some((namespace, name)) => Self::new(namespace, name),
            None => Self::new("", text),
        }
    }

    /// The part before the slash.
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The part after the slash.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, name)| name)
    }

    /// The id as a twin's key.
    pub fn key(&self) -> &Key {
        &self.0
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ServiceId {
    type Err = InvalidKey;
    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        Self::parse(text)
    }
}

impl TryFrom<CompactString> for ServiceId {
    type Error = InvalidKey;
    fn try_from(text: CompactString) -> Result<Self, InvalidKey> {
        Self::parse(&text)
    }
}

impl From<ServiceId> for CompactString {
    fn from(id: ServiceId) -> Self {
        id.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_alone_lies_in_the_default_namespace() {
        let id = ServiceId::parse("orders").unwrap();
        assert_eq!((id.namespace(), id.name(), id.as_str()), ("default", "orders", "default/orders"));
        assert_eq!(ServiceId::parse("shop/orders").unwrap().namespace(), "shop");
    }

    #[test]
    fn what_is_no_key_says_why() {
        assert_eq!(Key::parse(""), Err(InvalidKey::Empty));
        assert_eq!(Key::parse(&"x".repeat(257)), Err(InvalidKey::TooLong { bytes: 257 }));
        assert_eq!(Key::parse("a\nb"), Err(InvalidKey::Control { at: 1 }));
        for text in ["/a", "a/", "a/b/c", ""] {
            assert_eq!(ServiceId::parse(text), Err(InvalidKey::NotAService), "{text}");
        }
        assert!(ServiceId::parse("büro/größe").is_ok());
    }
}
