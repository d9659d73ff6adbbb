//! What a request's connection shows: where its other end is, and which tokens were sent on it.
//!
//! Some SDKs are known to leave the token out of some streams. Such a stream counts as the service whose token was sent
//! on the same HTTP/2 connection from this machine before, whichever door took it, if only one ever was; a second one, or
//! one that does not count, clears that for good. What came through a proxy says nothing about a connection, and clears
//! it, too.

use std::{any::Any, net::IpAddr, sync::Arc};

use axum::http::{Extensions, HeaderMap, Version};
use parking_lot::Mutex;

use super::identity::Identity;
use crate::model::Principal;

/// Headers that only a proxy sets.
const PROXIED: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

/// One connection; every request carries it.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The other end.
    pub peer: IpAddr,
    /// Whether it speaks HTTP/2, as SDKs do on a connection of their own.
    is_http2: bool,
    heard: Arc<Mutex<Heard>>,
    /// What counts it as open, for as long as anybody has it.
    _held: Option<Arc<dyn Any + Send + Sync>>,
}

#[derive(Debug, Default)]
enum Heard {
    #[default]
    Nobody,
    One(Identity),
    Several,
}

impl Connection {
    /// A connection on which nothing was sent yet.
    pub fn new(peer: IpAddr) -> Self {
        Self { peer, is_http2: false, heard: Arc::default(), _held: None }
    }

    /// The same with what counts it as open.
    pub(super) fn holding(self, held: impl Any + Send + Sync) -> Self {
        Self { _held: Some(Arc::new(held)), ..self }
    }

    /// The same, as a request of this version of HTTP came on it.
    pub(super) fn speaking(&self, version: Version) -> Self {
        Self { is_http2: version == Version::HTTP_2, ..self.clone() }
    }

    /// The connection of a request.
    pub fn of(extensions: &Extensions) -> Self {
        extensions.get::<Self>().cloned().unwrap_or_else(|| Self::new(IpAddr::from([0, 0, 0, 0])))
    }

    /// Notes who has just sent a token that counts.
    pub(super) fn note(&self, identity: &Identity, headers: &HeaderMap) {
        let mut heard = self.heard.lock();
        let next = match &*heard {
            Heard::Several => return,
            Heard::Nobody | Heard::One(_) if is_proxied(headers) => Heard::Several,
            Heard::Nobody => Heard::One(identity.clone()),
            Heard::One(known) if speaks_for(known) == speaks_for(identity) => return,
            Heard::One(_) => Heard::Several,
        };
        *heard = next;
    }

    /// Notes that a token was sent that does not count: whose it is nobody knows.
    pub(super) fn clear(&self) {
        *self.heard.lock() = Heard::Several;
    }

    /// The only one whose token was ever sent on it.
    pub fn only(&self, headers: &HeaderMap) -> Option<Identity> {
        if !self.is_http2 || !self.peer.is_loopback() {
            return None;
        }
        match &*self.heard.lock() {
            Heard::One(identity) if !is_proxied(headers) => Some(identity.clone()),
            Heard::One(_) | Heard::Nobody | Heard::Several => None,
        }
    }
}

fn is_proxied(headers: &HeaderMap) -> bool {
    PROXIED.iter().any(|name| headers.contains_key(*name))
}

/// Whom a token names: a service, whichever of its keys it is; otherwise the key.
fn speaks_for(identity: &Identity) -> Option<&str> {
    match &*identity.principal {
        Principal::Service { service, .. } => Some(service.as_str()),
        Principal::Operator { .. }
        | Principal::Ingest { .. }
        | Principal::Host
        | Principal::Runtime
        | Principal::Twin { .. } => identity.principal.key_id(),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::model::ServiceId;

    fn identity(service: &str, key_id: &str) -> Identity {
        let service = ServiceId::parse(service).unwrap();
        Identity::without_token(Principal::Service { key_id: key_id.into(), service })
    }

    fn connection(peer: [u8; 4]) -> Connection {
        Connection::new(peer.into()).speaking(Version::HTTP_2)
    }

    #[test]
    fn a_connection_speaks_for_the_only_one_it_heard_and_for_nobody_after_a_second() {
        let (none, orders, cart) = (HeaderMap::new(), identity("shop/orders", "1"), identity("shop/cart", "3"));
        let alone = connection([127, 0, 0, 1]);
        assert!(alone.only(&none).is_none());
        alone.note(&orders, &none);
        alone.note(&identity("shop/orders", "2"), &none);
        assert_eq!(alone.only(&none).unwrap().principal, orders.principal, "two keys, one service");
        let proxied =
            HeaderMap::from_iter([("x-forwarded-for".parse().unwrap(), HeaderValue::from_static("10.0.0.1"))]);
        assert!(alone.only(&proxied).is_none());
        assert!(alone.speaking(Version::HTTP_11).only(&none).is_none());
        alone.note(&cart, &none);
        alone.note(&orders, &none);
        assert!(alone.only(&none).is_none(), "for good");
        let (shared, far, doubtful) =
            (connection([127, 0, 0, 1]), connection([10, 0, 0, 1]), connection([127, 0, 0, 1]));
        shared.note(&orders, &proxied);
        assert!(shared.only(&none).is_none(), "a proxy may speak for anybody");
        far.note(&orders, &none);
        assert!(far.only(&none).is_none(), "from elsewhere");
        doubtful.note(&orders, &none);
        doubtful.clear();
        doubtful.note(&orders, &none);
        assert!(doubtful.only(&none).is_none(), "a token that does not count is somebody else's");
    }
}
