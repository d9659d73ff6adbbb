//! On whose behalf a message travels, until when, and under which key.

use std::{fmt, sync::Arc};

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{Key, ServiceId, Timestamp, TokenRights};

/// Which messages wait and which go first when a shard is busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Commands and administration: first.
    Control,
    /// Capability requests and ordinary calls.
    Capability,
    /// Observations: last, shed first.
    Telemetry,
}

impl Lane {
    /// Every lane, most urgent first.
    pub const ALL: [Self; 3] = [Self::Control, Self::Capability, Self::Telemetry];

    /// Position in [`Lane::ALL`].
    pub const fn index(self) -> usize {
        match self {
            Self::Control => 0,
            Self::Capability => 1,
            Self::Telemetry => 2,
        }
    }
}

/// Who a message speaks for; established once, at the door.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Principal {
    /// The embedding process itself.
    #[default]
    Host,
    /// The runtime: wake-ups, deliveries, sweeps.
    Runtime,
    /// A person or program with an operator key.
    Operator {
        /// The key's id, never the key.
        key_id: Arc<str>,
    },
    /// A collector: telemetry for the services of one namespace.
    Ingest {
        /// The key's id, never the key.
        key_id: Arc<str>,
        /// The one namespace it may speak for.
        namespace: Arc<str>,
    },
    /// Exactly one service.
    Service {
        /// The key's id, never the key.
        key_id: Arc<str>,
        /// The service.
        service: ServiceId,
    },
    /// Another twin.
    Twin {
        /// Its kind.
        kind: CompactString,
        /// Its key.
        key: Key,
    },
}

impl Principal {
    /// The id of the key it came with, if it came with one.
    pub fn key_id(&self) -> Option<&str> {
        match self {
            Self::Operator { key_id } | Self::Ingest { key_id, .. } | Self::Service { key_id, .. } => Some(key_id),
            Self::Host | Self::Runtime | Self::Twin { .. } => None,
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Runtime => f.write_str("runtime"),
            Self::Operator { key_id } => write!(f, "operator:{key_id}"),
            Self::Ingest { key_id, namespace } => write!(f, "ingest:{namespace}:{key_id}"),
            Self::Service { key_id, service } => write!(f, "service:{service}:{key_id}"),
            Self::Twin { kind, key } => write!(f, "twin:{kind}:{key}"),
        }
    }
}

/// What the answer of a twin that is read from memory rests on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// The owner's lease: clocks of the cluster's machines that run at about the same rate. Not stale.
    #[default]
    Lease,
    /// The store alone: after the turn the owner proves that it owned the twin still. Not stale; costs a write.
    Strict,
    /// Nothing: the owner answers without a lease, any other node from what it sees stored. May be stale.
    StaleOk,
}

impl Consistency {
    /// Every one, the default first.
    pub const ALL: [Self; 3] = [Self::Lease, Self::Strict, Self::StaleOk];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::Strict => "strict",
            Self::StaleOk => "stale-ok",
        }
    }

    /// Parses a name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == text)
    }
}

/// W3C trace context, version 00 (<https://www.w3.org/TR/trace-context/>).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TraceParent {
    /// 16 bytes, not all zero.
    pub trace_id: [u8; 16],
    /// 8 bytes, not all zero.
    pub span_id: [u8; 8],
    /// Bit 0: sampled.
    pub flags: u8,
}

impl TraceParent {
    /// Parses a `traceparent` header; `None` for anything malformed, as the standard asks.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if version.len() != 2 || version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let parsed = Self { trace_id: hex(trace)?, span_id: hex(span)?, flags: hex::<1>(flags)?[0] };
        u8::from_str_radix(version, 16).ok()?;
        (parsed.trace_id != [0; 16] && parsed.span_id != [0; 8]).then_some(parsed)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.trace_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-")?;
        self.span_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "-{:02x}", self.flags)
    }
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// An idempotency key with the time it was made.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RequestKey {
    /// What the caller chose.
    pub text: Arc<str>,
    /// When the caller made it.
    pub made_at: Timestamp,
}

impl RequestKey {
    /// Longest key, in bytes.
    pub const BYTES_MAX: usize = 256;

    /// Takes a key whose time the caller states.
    pub fn new(text: &str, made_at: Timestamp) -> Self {
        Self { text: text.into(), made_at }
    }

    /// Takes a UUIDv7, which carries its time; `None` for any other text.
    pub fn from_uuid_v7(text: &str) -> Option<Self> {
        let id = uuid::Uuid::try_parse(text).ok().filter(|id| id.get_version_num() == 7)?;
        let (seconds, nanos) = id.get_timestamp()?.to_unix();
        Some(Self::new(text, Timestamp::from_unix_ms(seconds * 1000 + u64::from(nanos / 1_000_000))))
    }
}

/// One pending ask between twins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The asking twin's kind.
    pub kind: CompactString,
    /// Its key.
    pub key: Key,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.key)
    }
}

/// What travels beside a message; the default costs nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Until when the caller waits; an expired message is dropped before its turn.
    pub deadline: Option<Timestamp>,
    rest: Option<Box<Rest>>,
}

/// The parts of a header that a bare call does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Rest {
    principal: Principal,
    rights: Option<Arc<TokenRights>>,
    trace: Option<TraceParent>,
    request: Option<RequestKey>,
    path: Vec<Step>,
    settles: Option<u64>,
    consistency: Consistency,
}

static HOST: Principal = Principal::Host;

impl Header {
    fn rest(&mut self) -> &mut Rest {
        self.rest.get_or_insert_default()
    }

    /// The same with a deadline.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Timestamp) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The same on behalf of `principal`.
    #[must_use]
    pub fn with_principal(mut self, principal: Principal) -> Self {
        self.rest().principal = principal;
        self
    }

    /// The same with what a token leaves of the principal's rights. They hold on this node and for this message; they are
    /// not written anywhere.
    #[must_use]
    pub fn with_rights(mut self, rights: Arc<TokenRights>) -> Self {
        self.rest().rights = Some(rights);
        self
    }

    /// The same within a trace.
    #[must_use]
    pub fn with_trace(mut self, trace: TraceParent) -> Self {
        self.rest().trace = Some(trace);
        self
    }

    /// The same under an idempotency key.
    #[must_use]
    pub fn with_request(mut self, request: RequestKey) -> Self {
        self.rest().request = Some(request);
        self
    }

    /// The same with a path of pending asks.
    #[must_use]
    pub fn with_path(mut self, path: Vec<Step>) -> Self {
        if !path.is_empty() {
            self.rest().path = path;
        }
        self
    }

    /// The same with what the answer shall rest on.
    #[must_use]
    pub fn with_consistency(mut self, consistency: Consistency) -> Self {
        if consistency != self.consistency() {
            self.rest().consistency = consistency;
        }
        self
    }

    /// The same as the answer to a twin's own ask: taking it settles the promise of this number.
    #[must_use]
    pub(crate) fn with_settles(mut self, number: u64) -> Self {
        self.rest().settles = Some(number);
        self
    }

    /// The promise of the receiving twin that this message settles.
    pub(crate) fn settles(&self) -> Option<u64> {
        self.rest.as_ref().and_then(|rest| rest.settles)
    }

    /// Who the message speaks for.
    pub fn principal(&self) -> &Principal {
        self.rest.as_ref().map_or(&HOST, |rest| &rest.principal)
    }

    /// What a token leaves of the principal's rights; all of them if it came without one.
    pub fn rights(&self) -> Option<&Arc<TokenRights>> {
        self.rest.as_ref().and_then(|rest| rest.rights.as_ref())
    }

    /// The trace it belongs to.
    pub fn trace(&self) -> Option<&TraceParent> {
        self.rest.as_ref().and_then(|rest| rest.trace.as_ref())
    }

    /// What the answer shall rest on.
    pub fn consistency(&self) -> Consistency {
        self.rest.as_ref().map_or(Consistency::Lease, |rest| rest.consistency)
    }

    /// Its idempotency key.
    pub fn request(&self) -> Option<&RequestKey> {
        self.rest.as_ref().and_then(|rest| rest.request.as_ref())
    }

    /// The twins that wait for its answer, outermost first.
    pub fn path(&self) -> &[Step] {
        self.rest.as_ref().map_or(&[], |rest| &rest.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_reads_back_as_it_was_written() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(TraceParent::parse(text).unwrap().to_string(), text);
        for bad in [
            "",
            "00-0-0-0",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceParent::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_a_uuid_of_version_7_carries_its_time() {
        let id = uuid::Uuid::now_v7().to_string();
        assert!(RequestKey::from_uuid_v7(&id).unwrap().made_at > Timestamp::ZERO);
        assert_eq!(RequestKey::from_uuid_v7(&uuid::Uuid::new_v4().to_string()), None);
    }
}
