//! The one place where identity is established.
//!
//! An API key is a token: see [`token`](crate::token). A token, if sent, decides alone; without one a request is
//! refused, unless the node was explicitly told to take anonymous loopback callers for operators.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use ahash::{HashMap, HashMapExt};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use compact_str::CompactString;
use parking_lot::{Mutex, RwLock};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::watch;

use super::{
    Config,
    identity::Identity,
    problem::{Code, Problem},
};
use crate::{
    model::{Principal, Timestamp},
    token::{RootKey, Said},
    twin::keyring::{Covers, Entry},
};

/// What stands for a key where none was needed.
pub const ANONYMOUS: &str = "anonymous-loopback";
/// The other header that a token may come in; SDKs of Dapr send it.
const DAPR_TOKEN: HeaderName = HeaderName::from_static("dapr-api-token");

/// Verified tokens kept in memory; when full, all are verified again.
const CACHE_KEYS_MAX: usize = 65_536;
/// How long a verified token is taken without asking the key's twin again; a revocation on this node counts at once.
pub const CACHE_AGE_MAX: Duration = Duration::from_secs(60);
/// The window in which failures are counted.
pub const FAILURE_WINDOW: Duration = Duration::from_secs(60);
/// Peers whose failures are counted; when full, the windows that ended are dropped, then all.
const FAILURE_PEERS_MAX: usize = 4096;

/// A token whose signatures hold, and whose key has not been asked for yet.
pub struct Presented {
    /// The key's id, which is the key of its twin.
    pub id: CompactString,
    covers: Covers,
    identity: Identity,
    hash: [u8; 32],
    /// Keys revoked before its twin was asked. After one more, what the twin said may be old, and is not remembered.
    revoked_before: u64,
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Presented({})", self.id)
    }
}

struct Known {
    hash: [u8; 32],
    identity: Identity,
    until: Timestamp,
}

struct Failures {
    since: Timestamp,
    count: u32,
}

/// What a request says about who sends it.
#[derive(Debug)]
pub enum Claim {
    /// Settled without asking anybody.
    Settled(Identity),
    /// The twin of this key has to be asked; [`Doorkeeper::verify`] takes its answer.
    Ask(Box<Presented>),
}

/// Verifies tokens, remembers verified ones and failing peers.
pub struct Doorkeeper {
    root: RootKey,
    audience: Option<String>,
    /// Failed verifications of one peer within [`FAILURE_WINDOW`] before it is throttled.
    failures_max: u32,
    known: RwLock<HashMap<u64, Known>>,
    failures: Mutex<HashMap<IpAddr, Failures>>,
    anonymous: Option<Identity>,
    /// How many keys were revoked through this node; streams wait for the next one.
    revoked: watch::Sender<u64>,
}

impl Doorkeeper {
    /// A doorkeeper that knows nobody. Takes tokens of `root` that are meant for the configured audience, or for everybody.
    pub fn new(root: RootKey, config: &Config) -> Self {
        let operator = || Identity::without_token(Principal::Operator { key_id: ANONYMOUS.into() });
        Self {
            root,
            audience: config.audience.clone(),
            failures_max: config.wrong_keys_per_minute,
            known: RwLock::new(HashMap::new()),
            failures: Mutex::new(HashMap::new()),
            revoked: watch::Sender::new(0),
            anonymous: config.anonymous_loopback.then(operator),
        }
    }

    /// What makes tokens.
    pub(super) fn root(&self) -> &RootKey {
        &self.root
    }

    /// Settles who sends a request, or says which key has to be asked.
    pub fn claim(&self, headers: &HeaderMap, peer: IpAddr, now: Timestamp) -> Result<Claim, Problem> {
        let failed = |problem| {
            self.failed(peer, now);
            problem
        };
        let Some(token) = token(headers).map_err(failed)? else {
            return match &self.anonymous {
                Some(operator) if peer.is_loopback() && is_own_page(headers) => Ok(Claim::Settled(operator.clone())),
                Some(_) | None => Err(Problem::new(
                    Code::KeyMissing,
                    "send 'Authorization: Bearer twk_…'; 'twin key new' makes a key",
                )),
            };
        };
        let hash = digest(token);
        let mut is_guess = true;
        if let Some(known) = self.known.read().get(&slot(&hash))
            && bool::from(known.hash.ct_eq(&hash))
        {
            if now < known.until {
                count(&known.identity, now)?;
                return Ok(Claim::Settled(known.identity.clone()));
            }
            // Its key's twin is asked again, but whoever sends it does not guess.
            is_guess = false;
        }
        if is_guess {
            self.admit(peer, now)?;
        }
        let said =
            self.root.verify(token).map_err(|error| failed(Problem::new(Code::KeyInvalid, error.to_string())))?;
        // From here on nothing was guessed: the signature holds.
        self.meant_for_us(&said)?;
        let identity = identity(&said);
        count(&identity, now)?;
        let Said { id, covers, .. } = said;
        Ok(Claim::Ask(Box::new(Presented { id, covers, identity, hash, revoked_before: *self.revoked.borrow() })))
    }

    /// Judges a token by what the twin of its key keeps, and remembers the good ones.
    pub fn verify(&self, presented: &Presented, entry: Option<&Entry>, now: Timestamp) -> Result<Identity, Problem> {
        let identity = presented.identity.clone();
        let Some(entry) = entry.filter(|entry| entry.covers == presented.covers) else {
            return Err(Problem::new(Code::KeyInvalid, "this node knows no such key; see 'twin key ls'"));
        };
        if !entry.counts(now) {
            return Err(revoked(&presented.id));
        }
        let mut known = self.known.write();
        // Under the lock: a revocation from here on finds the token and removes it.
        if *self.revoked.borrow() != presented.revoked_before {
            return Ok(identity);
        }
        if known.len() >= CACHE_KEYS_MAX {
            known.clear();
        }
        let until = trusted_until(entry, now);
        known.insert(slot(&presented.hash), Known { hash: presented.hash, identity: identity.clone(), until });
        Ok(identity)
    }

    /// Forgets every token of a key that was revoked: the next request with one asks its twin, and so do streams that
    /// are open.
    pub fn forget(&self, id: &str) {
        // Counted first: whoever asked before must not remember the token after it was removed.
        self.revoked.send_modify(|count| *count += 1);
        self.known.write().retain(|_, known| known.identity.principal.key_id() != Some(id));
    }

    /// Counts the keys that are revoked through this node.
    pub fn revocations(&self) -> watch::Receiver<u64> {
        self.revoked.subscribe()
    }

    fn meant_for_us(&self, said: &Said) -> Result<(), Problem> {
        said.rights.meant_for(self.audience.as_deref()).map_err(|narrowed| {
            let us = match &self.audience {
                Some(audience) => format!("this node is '{audience}' (server.audience)"),
                None => "this node has no server.audience, so it takes no such token".to_owned(),
            };
            Problem::new(Code::KeyInvalid, format!("{narrowed}: {us}"))
        })
    }

    fn admit(&self, peer: IpAddr, now: Timestamp) -> Result<(), Problem> {
        let failures = self.failures.lock();
        let Some(failed) = failures.get(&peer) else { return Ok(()) };
        let ends = failed.since.after(FAILURE_WINDOW);
        if failed.count < self.failures_max || ends <= now {
            return Ok(());
        }
        let detail = format!("more than {} wrong keys a minute from {peer}", self.failures_max);
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

/// Until when what a key's twin said may be relied upon.
pub(super) fn trusted_until(entry: &Entry, now: Timestamp) -> Timestamp {
    now.after(CACHE_AGE_MAX).min(entry.revoked_at.unwrap_or(Timestamp::MAX))
}

pub(super) fn revoked(id: &str) -> Problem {
    Problem::new(Code::KeyRevoked, format!("key {id} was revoked, or another one has taken its place"))
}

/// Refuses a token whose time is over.
fn count(identity: &Identity, now: Timestamp) -> Result<(), Problem> {
    identity.rights.as_ref().map_or(Ok(()), |rights| Ok(rights.count(now)?))
}

fn identity(said: &Said) -> Identity {
    let key_id = Arc::from(said.id.as_str());
    let principal = match &said.covers {
        Covers::Operator => Principal::Operator { key_id },
        Covers::Ingest { namespace } => Principal::Ingest { key_id, namespace: namespace.clone() },
        Covers::Service { service } => Principal::Service { key_id, service: service.clone() },
    };
    Identity { principal: Arc::new(principal), rights: Some(Arc::new(said.rights.clone())) }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// Where a verified token lies: eight bytes of its hash.
fn slot(hash: &[u8; 32]) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash[..8]);
    u64::from_le_bytes(bytes)
}

/// Whether a request has any token, good or bad.
pub(super) fn has_token(headers: &HeaderMap) -> bool {
    headers.contains_key(header::AUTHORIZATION) || headers.contains_key(DAPR_TOKEN)
}

/// The one token of a request. It may come more than once, but always the same. Beside Dapr's header, an `Authorization`
/// that is no key of ours is somebody else's.
fn token(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let wrong = |detail| Problem::new(Code::KeyInvalid, detail);
    let mut found = None;
    let is_foreign = headers.contains_key(DAPR_TOKEN) && !is_bearer_key(headers);
    let bearers = headers.get_all(header::AUTHORIZATION).iter().filter(|_| !is_foreign);
    let bearers = bearers.map(|value| value.to_str().ok().and_then(bearer));
    let plain = headers.get_all(DAPR_TOKEN).iter().map(|value: &HeaderValue| value.to_str().ok().map(str::trim));
    for token in bearers.chain(plain) {
        let token = token.ok_or_else(|| wrong("the Authorization header must be 'Bearer ' and a key 'twk_…'"))?;
        if found.replace(token).is_some_and(|earlier| earlier != token) {
            return Err(wrong("Authorization and dapr-api-token are both sent, and differ; send one of them"));
        }
    }
    Ok(found)
}

/// Whether an `Authorization` of a request is a key of ours.
pub(super) fn is_bearer_key(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| value.to_str().ok());
    values.filter_map(bearer).any(|token| token.starts_with(crate::token::PREFIX))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{
            ServiceId,
            rights::{Attenuation, Narrowing},
            scope::Operations,
        },
        token::attenuate,
    };

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const NOW: Timestamp = Timestamp::from_unix_ms(1_000_000);
    const ID: &str = "0123456789abcdef";

    fn covers() -> Covers {
        Covers::Service { service: ServiceId::parse("shop/orders").unwrap() }
    }

    fn entry() -> Entry {
        Entry { covers: covers(), label: "".into(), created_at: NOW, revoked_at: None }
    }

    fn doorkeeper() -> Doorkeeper {
        Doorkeeper::new(RootKey::generate(), &Config::default())
    }

    fn mint(door: &Doorkeeper) -> String {
        door.root().mint(ID, &covers(), NOW, &Attenuation::default()).unwrap()
    }

    fn until(token: &str, expires_at: Timestamp) -> String {
        attenuate(token, &Attenuation { expires_at: Some(expires_at), ..Attenuation::default() }).unwrap()
    }

    fn with_token(token: &str) -> HeaderMap {
        let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        HeaderMap::from_iter([(header::AUTHORIZATION, value)])
    }

    fn ask(door: &Doorkeeper, token: &str) -> Presented {
        match door.claim(&with_token(token), PEER, NOW) {
            Ok(Claim::Ask(presented)) => *presented,
            other => panic!("{other:?}"),
        }
    }

    fn refused(door: &Doorkeeper, token: &str, now: Timestamp) -> Code {
        door.claim(&with_token(token), PEER, now).unwrap_err().code
    }

    #[test]
    fn a_key_is_asked_for_once_and_then_known_for_a_minute() {
        let door = doorkeeper();
        let token = mint(&door);
        let headers = with_token(&token);
        door.verify(&ask(&door, &token), Some(&entry()), NOW).unwrap();
        assert!(matches!(door.claim(&headers, PEER, NOW), Ok(Claim::Settled(_))));
        assert!(matches!(door.claim(&headers, PEER, NOW.after(CACHE_AGE_MAX)), Ok(Claim::Ask(_))));
    }

    #[test]
    fn a_revocation_makes_every_token_of_the_key_be_asked_for_again() {
        let door = doorkeeper();
        let token = mint(&door);
        let tokens = [until(&token, NOW.after(CACHE_AGE_MAX)), token];
        for token in &tokens {
            door.verify(&ask(&door, token), Some(&entry()), NOW).unwrap();
        }
        door.forget("another");
        assert!(matches!(door.claim(&with_token(&tokens[0]), PEER, NOW), Ok(Claim::Settled(_))));
        door.forget(ID);
        for token in &tokens {
            ask(&door, token);
        }
    }

    #[test]
    fn a_key_that_is_revoked_while_its_twin_is_asked_is_asked_for_again() {
        let door = doorkeeper();
        let token = mint(&door);
        let presented = ask(&door, &token);
        let answered_before = entry();
        door.forget(ID);
        door.verify(&presented, Some(&answered_before), NOW).unwrap();
        ask(&door, &token);
    }

    #[test]
    fn a_key_that_another_one_replaces_counts_until_then() {
        let door = doorkeeper();
        let token = mint(&door);
        let end = NOW.after(Duration::from_secs(1));
        let entry = Entry { revoked_at: Some(end), ..entry() };
        let presented = ask(&door, &token);
        door.verify(&presented, Some(&entry), NOW).unwrap();
        assert!(
            matches!(door.claim(&with_token(&token), PEER, end), Ok(Claim::Ask(_))),
            "known no longer than it counts"
        );
        assert_eq!(door.verify(&presented, Some(&entry), end).unwrap_err().code, Code::KeyRevoked);
    }

    #[test]
    fn a_wrong_revoked_or_missing_key_is_refused() {
        let (door, other) = (doorkeeper(), doorkeeper());
        let presented = ask(&door, &mint(&door));
        let code = |entry: Option<&Entry>| door.verify(&presented, entry, NOW).unwrap_err().code;
        assert_eq!(code(None), Code::KeyInvalid);
        assert_eq!(code(Some(&Entry { covers: Covers::Operator, ..entry() })), Code::KeyInvalid);
        assert_eq!(code(Some(&Entry { revoked_at: Some(NOW), ..entry() })), Code::KeyRevoked);
        assert_eq!(door.claim(&HeaderMap::new(), PEER, NOW).unwrap_err().code, Code::KeyMissing);
        assert_eq!(refused(&door, &mint(&other), NOW), Code::KeyInvalid);
        for wrong in ["", "twk_", "twk_AAAA", "Basic", &format!("twk_{}_{}", "0".repeat(16), "0".repeat(64))] {
            assert_eq!(refused(&door, wrong, NOW), Code::KeyInvalid, "{wrong:?}");
        }
    }

    #[test]
    fn an_expired_token_is_refused_whether_it_is_known_or_not() {
        let door = doorkeeper();
        let end = NOW.after(Duration::from_secs(1));
        let token = until(&mint(&door), end);
        assert_eq!(refused(&door, &token, end), Code::KeyExpired);
        door.verify(&ask(&door, &token), Some(&entry()), NOW).unwrap();
        assert_eq!(refused(&door, &token, end), Code::KeyExpired);
    }

    #[test]
    fn a_token_for_an_audience_is_taken_there_alone() {
        let root = RootKey::generate().to_text();
        let door = |audience: Option<&str>| {
            let config = Config { audience: audience.map(str::to_owned), ..Config::default() };
            Doorkeeper::new(RootKey::parse(&root).unwrap(), &config)
        };
        let (none, east, west) = (door(None), door(Some("east")), door(Some("west")));
        let whole = mint(&none);
        let for_east = Attenuation { audiences: Some(vec!["east".into()]), ..Attenuation::default() };
        let token = attenuate(&whole, &for_east).unwrap();
        ask(&east, &token);
        ask(&east, &whole);
        assert_eq!((refused(&none, &token, NOW), refused(&west, &token, NOW)), (Code::KeyInvalid, Code::KeyInvalid));
    }

    #[test]
    fn a_token_comes_in_either_header_but_two_must_be_the_same() {
        let door = doorkeeper();
        let token = mint(&door);
        let get = Narrowing { operations: Operations::Some(vec!["get".into()]), scopes: None };
        let other = attenuate(&token, &Attenuation { narrowing: get, ..Attenuation::default() }).unwrap();
        let mut headers = HeaderMap::from_iter([(DAPR_TOKEN, HeaderValue::from_str(&token).unwrap())]);
        assert!(matches!(door.claim(&headers, PEER, NOW), Ok(Claim::Ask(_))));
        headers.extend(with_token(&token));
        assert!(matches!(door.claim(&headers, PEER, NOW), Ok(Claim::Ask(_))));
        headers.extend(with_token(&other));
        assert_eq!(door.claim(&headers, PEER, NOW).unwrap_err().code, Code::KeyInvalid);
    }

    #[test]
    fn a_peer_that_guesses_is_throttled_and_others_are_not() {
        let door = doorkeeper();
        let token = mint(&door);
        door.verify(&ask(&door, &token), Some(&entry()), NOW).unwrap();
        for _ in 0..Config::default().wrong_keys_per_minute {
            assert_eq!(refused(&door, "twk_AAAA", NOW), Code::KeyInvalid);
        }
        assert_eq!(refused(&door, "twk_AAAA", NOW), Code::KeyThrottled);
        assert!(matches!(door.claim(&with_token(&token), PEER, NOW), Ok(Claim::Settled(_))));
        assert!(door.claim(&with_token(&mint(&door)), IpAddr::from([10, 0, 0, 1]), NOW).is_ok());
        assert_eq!(refused(&door, "twk_AAAA", NOW.after(FAILURE_WINDOW)), Code::KeyInvalid);
    }

    #[test]
    fn a_key_in_use_is_asked_for_again_and_not_throttled_beside_a_guesser() {
        let door = doorkeeper();
        let token = mint(&door);
        door.verify(&ask(&door, &token), Some(&entry()), NOW).unwrap();
        let before = NOW.after(CACHE_AGE_MAX / 2);
        for _ in 0..Config::default().wrong_keys_per_minute {
            assert_eq!(refused(&door, "twk_AAAA", before), Code::KeyInvalid);
        }
        let later = NOW.after(CACHE_AGE_MAX);
        assert_eq!(refused(&door, "twk_AAAA", later), Code::KeyThrottled);
        assert!(matches!(door.claim(&with_token(&token), PEER, later), Ok(Claim::Ask(_))));
    }

    #[test]
    fn a_key_that_was_signed_here_and_counts_no_more_is_no_guess() {
        let door = doorkeeper();
        let token = mint(&door);
        let expired = until(&token, NOW);
        let presented = ask(&door, &token);
        for _ in 0..=Config::default().wrong_keys_per_minute {
            assert_eq!(refused(&door, &expired, NOW.after(Duration::from_secs(1))), Code::KeyExpired);
            let revoked = Entry { revoked_at: Some(NOW), ..entry() };
            assert_eq!(door.verify(&presented, Some(&revoked), NOW).unwrap_err().code, Code::KeyRevoked);
        }
        ask(&door, &token);
    }

    #[test]
    fn anonymous_callers_are_operators_only_from_loopback_and_only_when_asked_for() {
        let config = Config { anonymous_loopback: true, ..Config::default() };
        let door = Doorkeeper::new(RootKey::generate(), &config);
        assert!(matches!(door.claim(&HeaderMap::new(), PEER, NOW), Ok(Claim::Settled(_))));
        assert!(door.claim(&HeaderMap::new(), IpAddr::from([10, 0, 0, 1]), NOW).is_err());
        let foreign = HeaderMap::from_iter([(header::ORIGIN, HeaderValue::from_static("https://evil.example"))]);
        assert!(door.claim(&foreign, PEER, NOW).is_err());
    }
}
