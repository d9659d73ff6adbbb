//! The one place where identity is established and what it reaches is said.
//!
//! An API key is `twk_<id>_<secret>`: 16 and 64 hexadecimal digits. A key, if sent, decides alone; without one a request
//! is refused, unless the node was explicitly told to take anonymous loopback callers for operators.

use std::{net::IpAddr, sync::Arc, time::Duration};

use ahash::{HashMap, HashMapExt};
use axum::http::{HeaderMap, header};
use parking_lot::{Mutex, RwLock};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::watch;

use super::problem::{Code, Problem};
use crate::{
    model::{Principal, ServiceId, Timestamp},
    twin::keyring::{Covers, Entry},
};

/// What stands for a key where none was needed.
pub const ANONYMOUS: &str = "anonymous-loopback";
/// Every key starts so, which lets secret scanners find leaked ones.
pub const PREFIX: &str = "twk_";
const DAPR_TOKEN: &str = "dapr-api-token";
const ID_DIGITS: usize = 16;
const SECRET_DIGITS: usize = 64;

/// Verified keys kept in memory; when full, all are verified again.
const CACHE_KEYS_MAX: usize = 65_536;
/// How long a verified key is taken without asking its twin again; a revocation on this node counts at once.
pub const CACHE_AGE_MAX: Duration = Duration::from_secs(60);
/// Failed verifications of one peer within [`FAILURE_WINDOW`] before it is throttled.
pub const FAILURES_MAX: u32 = 20;
/// The window in which failures are counted.
pub const FAILURE_WINDOW: Duration = Duration::from_secs(60);
/// Peers whose failures are counted; when full, the windows that ended are dropped, then all.
const FAILURE_PEERS_MAX: usize = 4096;

/// A key as the caller sent it; prints nothing of the secret.
pub struct Presented<'a> {
    /// Public id: the key of its twin.
    pub id: &'a str,
    hash: [u8; 32],
    /// Keys revoked before its twin was asked. After one more, what the twin said may be old, and is not remembered.
    revoked_before: u64,
}

impl<'a> Presented<'a> {
    /// Parses a key; `None` if it is none.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let hex = |text: &str, digits: usize| text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
        (hex(id, ID_DIGITS) && hex(secret, SECRET_DIGITS)).then(|| Self { id, hash: digest(text), revoked_before: 0 })
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// A fresh key, shown once.
pub struct Fresh {
    /// Public id.
    pub id: String,
    /// The whole key.
    pub key: String,
    /// What is kept of it.
    pub hash: [u8; 32],
}

impl Fresh {
    /// Draws 256 random bits from the system-seeded generator.
    pub fn draw() -> Self {
        let (id, secret): (u64, [u8; 32]) = (rand::random(), rand::random());
        let id = format!("{id:016x}");
        let mut key = format!("{PREFIX}{id}_");
        for digit in secret.iter().flat_map(|byte| [byte >> 4, byte & 15]) {
            key.push(char::from_digit(digit.into(), 16).expect("four bits are one digit"));
        }
        let hash = digest(&key);
        Self { id, key, hash }
    }
}

struct Known {
    hash: [u8; 32],
    principal: Arc<Principal>,
    until: Timestamp,
}

struct Failures {
    since: Timestamp,
    count: u32,
}

/// What a request says about who sends it.
#[derive(Debug)]
pub enum Claim<'a> {
    /// Settled without asking anybody.
    Settled(Arc<Principal>),
    /// The twin of this key has to be asked; [`Doorkeeper::verify`] takes its answer.
    Ask(Presented<'a>),
}

impl std::fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Presented({})", self.id)
    }
}

/// Remembers verified keys and failing peers.
pub struct Doorkeeper {
    known: RwLock<HashMap<u64, Known>>,
    failures: Mutex<HashMap<IpAddr, Failures>>,
    anonymous: Option<Arc<Principal>>,
    /// How many keys were revoked through this node; streams wait for the next one.
    revoked: watch::Sender<u64>,
}

impl Doorkeeper {
    /// A doorkeeper that knows nobody. `anonymous_loopback` takes loopback callers without a key for operators.
    pub fn new(anonymous_loopback: bool) -> Self {
        Self {
            known: RwLock::new(HashMap::new()),
            failures: Mutex::new(HashMap::new()),
            revoked: watch::Sender::new(0),
            anonymous: anonymous_loopback.then(|| Arc::new(Principal::Operator { key_id: ANONYMOUS.into() })),
        }
    }

    /// Settles who sends a request, or says which key has to be asked.
    pub fn claim<'a>(&self, headers: &'a HeaderMap, peer: IpAddr, now: Timestamp) -> Result<Claim<'a>, Problem> {
        // SDKs of Dapr have a header of their own for it.
        let bearer = headers.get(header::AUTHORIZATION).map(|value| value.to_str().ok().and_then(bearer));
        let plain = headers.get(DAPR_TOKEN).map(|value| value.to_str().ok());
        let Some(token) = bearer.or(plain) else {
            return match &self.anonymous {
                Some(operator) if peer.is_loopback() && is_own_page(headers) => Ok(Claim::Settled(operator.clone())),
                Some(_) | None => Err(Problem::new(
                    Code::KeyMissing,
                    "send 'Authorization: Bearer twk_…'; 'twin key new' makes a key",
                )),
            };
        };
        let presented = token.and_then(Presented::parse);
        let Some(presented) = presented else {
            self.failed(peer, now);
            return Err(Problem::new(
                Code::KeyInvalid,
                "the Authorization header must be 'Bearer ' and a key 'twk_', 16 digits, '_', 64 digits",
            ));
        };
        if let Some(known) = self.known.read().get(&slot(&presented.hash))
            && now < known.until
            && bool::from(known.hash.ct_eq(&presented.hash))
        {
            return Ok(Claim::Settled(known.principal.clone()));
        }
        self.admit(peer, now)?;
        Ok(Claim::Ask(Presented { revoked_before: *self.revoked.borrow(), ..presented }))
    }

    /// Judges a key by what its twin keeps, and remembers the good ones.
    pub fn verify(
        &self,
        presented: &Presented<'_>,
        entry: Option<&Entry>,
        peer: IpAddr,
        now: Timestamp,
    ) -> Result<Arc<Principal>, Problem> {
        // A missing entry is compared too, so that time does not tell a known id from an unknown one.
        let kept = entry.map_or([0; 32], |entry| entry.hash);
        let same = bool::from(kept.ct_eq(&presented.hash));
        let (Some(entry), true) = (entry, same) else {
            self.failed(peer, now);
            return Err(Problem::new(Code::KeyInvalid, "this node knows no such key; see 'twin key ls'"));
        };
        if entry.revoked_at.is_some() {
            self.failed(peer, now);
            return Err(Problem::new(Code::KeyRevoked, format!("key {} was revoked", presented.id)));
        }
        let principal = Arc::new(principal_of(presented.id, &entry.covers));
        let mut known = self.known.write();
        // Under the lock: a revocation from here on finds the key and removes it.
        if *self.revoked.borrow() != presented.revoked_before {
            return Ok(principal);
        }
        if known.len() >= CACHE_KEYS_MAX {
            known.clear();
        }
        let until = now.after(CACHE_AGE_MAX);
        known.insert(slot(&presented.hash), Known { hash: presented.hash, principal: principal.clone(), until });
        Ok(principal)
    }

    /// Forgets a key that was revoked: the next request with it asks its twin, and so do streams that are open.
    pub fn forget(&self, hash: &[u8; 32]) {
        // Counted first: whoever asked before must not remember the key after it was removed.
        self.revoked.send_modify(|count| *count += 1);
        self.known.write().remove(&slot(hash));
    }

    /// Counts the keys that are revoked through this node.
    pub fn revocations(&self) -> watch::Receiver<u64> {
        self.revoked.subscribe()
    }

    fn admit(&self, peer: IpAddr, now: Timestamp) -> Result<(), Problem> {
        let failures = self.failures.lock();
        let Some(failed) = failures.get(&peer) else { return Ok(()) };
        let ends = failed.since.after(FAILURE_WINDOW);
        if failed.count < FAILURES_MAX || ends <= now {
            return Ok(());
        }
        let detail = format!("more than {FAILURES_MAX} wrong keys a minute from {peer}");
        Err(Problem::new(Code::KeyThrottled, detail).retry_after(ends.since(now)))
    }

    fn failed(&self, peer: IpAddr, now: Timestamp) {
        let mut failures = self.failures.lock();
        if failures.len() >= FAILURE_PEERS_MAX && !failures.contains_key(&peer) {
            failures.retain(|_, failed| now < failed.since.after(FAILURE_WINDOW));
            if failures.len() >= FAILURE_PEERS_MAX {
                failures.clear();
            }
        }
        let failed = failures.entry(peer).or_insert(Failures { since: now, count: 0 });
        if failed.since.after(FAILURE_WINDOW) <= now {
            *failed = Failures { since: now, count: 0 };
        }
        failed.count = failed.count.saturating_add(1);
    }
}

/// Where a verified key lies: eight bytes of its hash.
fn slot(hash: &[u8; 32]) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash[..8]);
    u64::from_le_bytes(bytes)
}

/// `Bearer <token>`; the scheme in any case (RFC 9110, section 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// No browser page of another site speaks: the host is a loopback name and no foreign origin is stated.
fn is_own_page(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).unwrap_or("localhost");
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let loopback = matches!(name, "localhost" | "127.0.0.1" | "[::1]");
    let same_site =
        matches!(text(header::HeaderName::from_static("sec-fetch-site")), None | Some("same-origin" | "none"));
    let origin = text(header::ORIGIN).is_none_or(|origin| origin.split_once("://").is_some_and(|(_, at)| at == host));
    loopback && same_site && origin
}

fn principal_of(id: &str, covers: &Covers) -> Principal {
    match covers {
        Covers::Operator => Principal::Operator { key_id: id.into() },
        Covers::Ingest { namespace } => Principal::Ingest { key_id: id.into(), namespace: namespace.clone() },
        Covers::Service { service } => Principal::Service { key_id: id.into(), service: service.clone() },
    }
}

/// What a request wants of a twin, for [`allow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Send telemetry.
    Observe,
    /// Read the twin, its commands, its journal, its events.
    Read,
    /// Act as the service: report features, take, acknowledge and finish commands.
    Serve,
    /// Change what is desired of it, command it, remove it.
    Administer,
}

/// Refuses unless `principal` may do this to `service`. Equal for twins that exist and those that do not.
pub fn allow(principal: &Principal, wish: Wish, service: &ServiceId) -> Result<(), Problem> {
    let allowed = match principal {
        Principal::Host | Principal::Runtime | Principal::Operator { .. } => true,
        Principal::Ingest { namespace, .. } => wish == Wish::Observe && service.namespace() == &**namespace,
        Principal::Service { service: own, .. } => wish != Wish::Administer && own == service,
        Principal::Twin { .. } => false,
    };
    if allowed { Ok(()) } else { Err(Problem::new(Code::Denied, refusal(principal))) }
}

/// Refuses whoever is no operator.
pub fn operator(principal: &Principal) -> Result<(), Problem> {
    match principal {
        Principal::Host | Principal::Runtime | Principal::Operator { .. } => Ok(()),
        Principal::Ingest { .. } | Principal::Service { .. } | Principal::Twin { .. } => {
            Err(Problem::new(Code::Denied, "this takes an operator key"))
        }
    }
}

fn refusal(principal: &Principal) -> String {
    match principal {
        Principal::Ingest { namespace, .. } => {
            format!("this ingest key covers telemetry for services in namespace '{namespace}' and nothing else")
        }
        Principal::Service { service, .. } => format!("this service key covers what '{service}' itself may do"),
        Principal::Host | Principal::Runtime | Principal::Operator { .. } | Principal::Twin { .. } => {
            "not allowed".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const NOW: Timestamp = Timestamp::from_unix_ms(1_000_000);

    fn with_key(key: &str) -> HeaderMap {
        let value = HeaderValue::from_str(&format!("Bearer {key}")).unwrap();
        HeaderMap::from_iter([(header::AUTHORIZATION, value)])
    }

    fn entry(fresh: &Fresh) -> Entry {
        let covers = Covers::Service { service: ServiceId::parse("shop/orders").unwrap() };
        Entry { hash: fresh.hash, covers, label: "".into(), created_at: NOW, revoked_at: None }
    }

    #[test]
    fn a_key_is_asked_for_once_and_then_known_for_a_minute() {
        let (door, fresh) = (Doorkeeper::new(false), Fresh::draw());
        let headers = with_key(&fresh.key);
        let Ok(Claim::Ask(presented)) = door.claim(&headers, PEER, NOW) else { panic!("unknown yet") };
        door.verify(&presented, Some(&entry(&fresh)), PEER, NOW).unwrap();
        assert!(matches!(door.claim(&headers, PEER, NOW), Ok(Claim::Settled(_))));
        assert!(matches!(door.claim(&headers, PEER, NOW.after(CACHE_AGE_MAX)), Ok(Claim::Ask(_))));
        door.forget(&fresh.hash);
        assert!(matches!(door.claim(&headers, PEER, NOW), Ok(Claim::Ask(_))));
    }

    #[test]
    fn a_key_may_come_as_sdks_of_dapr_send_it() {
        let (door, fresh) = (Doorkeeper::new(false), Fresh::draw());
        let value = HeaderValue::try_from(&fresh.key).unwrap();
        let headers = HeaderMap::from_iter([(header::HeaderName::from_static(DAPR_TOKEN), value)]);
        assert!(matches!(door.claim(&headers, PEER, NOW), Ok(Claim::Ask(_))));
    }

    #[test]
    fn a_key_that_is_revoked_while_its_twin_is_asked_is_asked_for_again() {
        let (door, fresh) = (Doorkeeper::new(false), Fresh::draw());
        let headers = with_key(&fresh.key);
        let Ok(Claim::Ask(presented)) = door.claim(&headers, PEER, NOW) else { panic!("unknown yet") };
        let answered_before = entry(&fresh);
        door.forget(&fresh.hash);
        door.verify(&presented, Some(&answered_before), PEER, NOW).unwrap();
        assert!(matches!(door.claim(&headers, PEER, NOW), Ok(Claim::Ask(_))), "the next request asks");
    }

    #[test]
    fn a_wrong_revoked_or_missing_key_is_refused() {
        let (door, fresh, other) = (Doorkeeper::new(false), Fresh::draw(), Fresh::draw());
        let presented = Presented::parse(&fresh.key).unwrap();
        let code = |entry: Option<&Entry>| door.verify(&presented, entry, PEER, NOW).unwrap_err().code;
        assert_eq!(code(None), Code::KeyInvalid);
        assert_eq!(code(Some(&entry(&other))), Code::KeyInvalid);
        assert_eq!(code(Some(&Entry { revoked_at: Some(NOW), ..entry(&fresh) })), Code::KeyRevoked);
        assert_eq!(door.claim(&HeaderMap::new(), PEER, NOW).unwrap_err().code, Code::KeyMissing);
        assert_eq!(door.claim(&with_key("twk_x_y"), PEER, NOW).unwrap_err().code, Code::KeyInvalid);
    }

    #[test]
    fn a_peer_that_guesses_is_throttled_while_known_keys_go_on() {
        let (door, fresh) = (Doorkeeper::new(false), Fresh::draw());
        let presented = Presented::parse(&fresh.key).unwrap();
        door.verify(&presented, Some(&entry(&fresh)), PEER, NOW).unwrap();
        for _ in 0..FAILURES_MAX {
            let guess = Fresh::draw();
            assert!(matches!(door.claim(&with_key(&guess.key), PEER, NOW), Ok(Claim::Ask(_))));
            assert!(door.verify(&Presented::parse(&guess.key).unwrap(), None, PEER, NOW).is_err());
        }
        let guess = with_key(&Fresh::draw().key);
        assert_eq!(door.claim(&guess, PEER, NOW).unwrap_err().code, Code::KeyThrottled);
        assert!(matches!(door.claim(&with_key(&fresh.key), PEER, NOW), Ok(Claim::Settled(_))));
        assert!(matches!(door.claim(&guess, PEER, NOW.after(FAILURE_WINDOW)), Ok(Claim::Ask(_))));
    }

    #[test]
    fn anonymous_callers_are_operators_only_from_loopback_and_only_when_asked_for() {
        let door = Doorkeeper::new(true);
        assert!(matches!(door.claim(&HeaderMap::new(), PEER, NOW), Ok(Claim::Settled(_))));
        assert!(door.claim(&HeaderMap::new(), IpAddr::from([10, 0, 0, 1]), NOW).is_err());
        let foreign = HeaderMap::from_iter([(header::ORIGIN, HeaderValue::from_static("https://evil.example"))]);
        assert!(door.claim(&foreign, PEER, NOW).is_err());
    }

    #[test]
    fn a_service_key_reaches_its_own_twin_only() {
        let own = ServiceId::parse("shop/orders").unwrap();
        let other = ServiceId::parse("shop/cart").unwrap();
        let service = Principal::Service { key_id: "k".into(), service: own.clone() };
        assert!(allow(&service, Wish::Serve, &own).is_ok());
        assert!(allow(&service, Wish::Administer, &own).is_err());
        assert_eq!(allow(&service, Wish::Read, &other).unwrap_err().code, Code::Denied);
        let ingest = Principal::Ingest { key_id: "k".into(), namespace: "shop".into() };
        assert!(allow(&ingest, Wish::Observe, &other).is_ok());
        assert!(allow(&ingest, Wish::Read, &other).is_err());
        assert!(operator(&ingest).is_err());
    }
}
