//! One request that was done, and the name it is found by.

use xxhash_rust::xxh3::xxh3_128;

use crate::{
    model::{Principal, RequestKey, Timestamp},
    twin::record::{self, Reader},
};

const HEAD_BYTES: usize = 16 + 8 + 8 + 8 + 2;
const NOT_KEPT: u16 = u16::MAX;

/// One request that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// From [`id`].
    pub id: [u8; 16],
    /// Hash of the request.
    pub fingerprint: u64,
    /// The twin's revision after it.
    pub revision: u64,
    /// When the caller made the key.
    pub made_at: Timestamp,
    /// The encoded reply; `None` if it was too large to keep.
    pub reply: Option<Box<[u8]>>,
}

impl Entry {
    pub(super) fn bytes(&self) -> usize {
        HEAD_BYTES + self.reply.as_ref().map_or(0, |reply| reply.len())
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id);
        for number in [self.fingerprint, self.revision, self.made_at.unix_ms()] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let reply = self.reply.as_deref();
        let length = reply.map_or(NOT_KEPT, |reply| u16::try_from(reply.len()).expect("a kept reply has a bound"));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(reply.unwrap_or_default());
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Self, record::Error> {
        let id = from.number()?;
        let fingerprint = u64::from_le_bytes(from.number()?);
        let revision = u64::from_le_bytes(from.number()?);
        let made_at = Timestamp::from_unix_ms(u64::from_le_bytes(from.number()?));
        let reply = match u16::from_le_bytes(from.number()?) {
            NOT_KEPT => None,
            length => Some(from.take(usize::from(length))?.into()),
        };
        Ok(Self { id, fingerprint, revision, made_at, reply })
    }
}

/// The ring's name for a key: XXH3-128 of who sent it and its text. A service is itself whichever of its tokens it
/// shows, so that a retry after a rotation is still a repeat. The key's time is no part of it: a repeat must
/// carry the time of the first attempt, as a UUIDv7 does, or it may be called new once the first is forgotten.
pub fn id(principal: &Principal, key: &RequestKey) -> [u8; 16] {
    let (tag, parts): (u8, [&str; 2]) = match principal {
        Principal::Host => (0, ["", ""]),
        Principal::Runtime => (1, ["", ""]),
        Principal::Operator { key_id } => (2, [key_id, ""]),
        Principal::Ingest { key_id, namespace } => (3, [namespace, key_id]),
        Principal::Service { key_id: _, service } => (4, [service.as_str(), ""]),
        Principal::Twin { kind, key } => (5, [kind, key.as_str()]),
    };
    let mut text = Vec::with_capacity(64);
    text.push(tag);
    for part in parts.into_iter().chain([&*key.text]) {
        // The length first, so that no two lists of parts read the same.
        text.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        text.extend_from_slice(part.as_bytes());
    }
    xxh3_128(&text).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Key, ServiceId};

    #[test]
    fn a_key_belongs_to_who_sent_it_but_not_to_the_token_shown() {
        let key = RequestKey::new("k", Timestamp::ZERO);
        let service =
            |key_id: &str, name| Principal::Service { key_id: key_id.into(), service: ServiceId::parse(name).unwrap() };
        let twin = Principal::Twin { kind: "operator".into(), key: Key::parse("a").unwrap() };
        let operator = Principal::Operator { key_id: "a".into() };
        let all = [Principal::Host, Principal::Runtime, twin, operator, service("1", "a"), service("1", "b")];
        let ids: std::collections::BTreeSet<_> = all.iter().map(|principal| id(principal, &key)).collect();
        assert_eq!(ids.len(), all.len());
        assert_eq!(id(&service("1", "a"), &key), id(&service("2", "a"), &key));
    }
}
