//! What a right is about: one operation on one name of a capability, and patterns of such names.
//!
//! A scope is written `capability:name`, such as `state:orders/42`, `secret:db-password`, `invoke:billing/POST /charge`.
//! A pattern is a scope whose name may end in `*`, which stands for any rest, an empty one included: `state:orders/*`,
//! `secret:db-*`, `topic:*`. A `*` anywhere else is the character itself.

use std::{fmt, str::FromStr};

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

/// Longest pattern, in bytes.
pub const PATTERN_BYTES_MAX: usize = 256;

/// What a request wants to do: an operation on a name of a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Want<'a> {
    /// The capability, such as `state`.
    pub capability: &'a str,
    /// What in it, such as `orders/42`.
    pub name: &'a str,
    /// The operation, such as `get`.
    pub operation: &'a str,
}

impl fmt::Display for Want<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}:{}", self.operation, self.capability, self.name)
    }
}

/// A set of scopes of one capability.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "CompactString", into = "CompactString")]
pub struct Pattern {
    text: CompactString,
    colon: u16,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// Too long.
    #[error("a scope has at most {PATTERN_BYTES_MAX} bytes, this one has {bytes}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// Not `capability:name`.
    #[error(
        "'{text}' is no scope: write 'capability:name', the name ending in '*' for any rest, such as 'state:orders/*'"
    )]
    Shape {
        /// What was given.
        text: CompactString,
    },
}

impl Pattern {
    /// Parses a pattern.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        Self::try_from(CompactString::new(text))
    }

    /// The capability it is about.
    pub fn capability(&self) -> &str {
        self.text.get(..usize::from(self.colon)).unwrap_or_default()
    }

    /// The name, or what names start with if [`Pattern::is_exact`] does not hold.
    pub fn literal(&self) -> &str {
        let name = self.name();
        name.strip_suffix('*').unwrap_or(name)
    }

    /// Whether it stands for one name only.
    pub fn is_exact(&self) -> bool {
        !self.name().ends_with('*')
    }

    /// Whether it holds what is wanted, whatever the operation.
    pub fn holds(&self, want: &Want<'_>) -> bool {
        self.capability() == want.capability
            && if self.is_exact() { want.name == self.name() } else { want.name.starts_with(self.literal()) }
    }

    /// How narrow it is: of two patterns that hold the same name, the deeper one is greater.
    pub fn depth(&self) -> (usize, bool) {
        (self.literal().len(), self.is_exact())
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn name(&self) -> &str {
        self.text.get(usize::from(self.colon) + 1..).unwrap_or_default()
    }
}

impl TryFrom<CompactString> for Pattern {
    type Error = InvalidPattern;

    fn try_from(text: CompactString) -> Result<Self, InvalidPattern> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(InvalidPattern::TooLong { bytes: text.len() });
        }
        let is_word = |word: &str| {
            !word.is_empty()
                && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        match text.split_once(':') {
            Some((capability, name)) if is_word(capability) && !name.is_empty() && !name.contains(char::is_control) => {
                let colon = u16::try_from(capability.len()).expect("a pattern is shorter than a u16 counts");
                Ok(Self { text, colon })
            }
            Some(_) | None => Err(InvalidPattern::Shape { text: text.chars().take(80).collect() }),
        }
    }
}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        Self::parse(text)
    }
}

impl From<Pattern> for CompactString {
    fn from(pattern: Pattern) -> Self {
        pattern.text
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Some operations of a capability, or all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Operations {
    /// Every one.
    #[default]
    All,
    /// These.
    Some(Vec<CompactString>),
}

impl Operations {
    /// Whether an operation is among them.
    pub fn hold(&self, operation: &str) -> bool {
        match self {
            Self::All => true,
            Self::Some(operations) => operations.iter().any(|each| each == operation),
        }
    }
}

impl fmt::Display for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Some(operations) => f.write_str(&operations.join(",")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want<'a>(capability: &'a str, name: &'a str) -> Want<'a> {
        Want { capability, name, operation: "get" }
    }

    #[test]
    fn a_pattern_holds_its_name_or_every_name_that_starts_so() {
        let orders = Pattern::parse("state:orders/*").unwrap();
        assert!(orders.holds(&want("state", "orders/42")));
        assert!(orders.holds(&want("state", "orders/")));
        assert!(!orders.holds(&want("state", "orders")));
        assert!(!orders.holds(&want("secret", "orders/42")));
        let one = Pattern::parse("invoke:billing/POST /charge").unwrap();
        assert!(one.holds(&want("invoke", "billing/POST /charge")));
        assert!(!one.holds(&want("invoke", "billing/POST /charge/2")));
        assert!(one.depth() > Pattern::parse("invoke:billing/POST /charg*").unwrap().depth());
        assert!(one.depth() > Pattern::parse("invoke:billing/POST /charge*").unwrap().depth());
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let long = format!("state:{}", "x".repeat(PATTERN_BYTES_MAX));
        for bad in ["", "state", ":x", "state:", "State:x", "sta te:x", "state:a\nb", &long] {
            assert!(Pattern::parse(bad).is_err(), "{bad:?}");
        }
    }
}
