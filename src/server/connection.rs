//! What a request's connection shows: where its other end is, and which tokens were sent on it.
//!
//! Some SDKs are known to leave the token out of some streams. Such a stream counts as the service whose token was sent
//! on the same connection before, whichever door took it, if only one ever was; a second one clears that for good. What
//! came through a proxy says nothing about a connection, and clears it, too.

use std::{net::IpAddr, sync::Arc};

use axum::http::{Extensions, HeaderMap};
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
    heard: Arc<Mutex<Heard>>,
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
        Self { peer, heard: Arc::default() }
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

    /// The only one whose token was ever sent on it.
    pub fn only(&self, headers: &HeaderMap) -> Option<Identity> {
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

    #[test]
    fn a_connection_speaks_for_the_only_one_it_heard_and_for_nobody_after_a_second() {
        let (none, orders, cart) = (HeaderMap::new(), identity("shop/orders", "1"), identity("shop/cart", "3"));
        let connection = Connection::new([127, 0, 0, 1].into());
        assert!(connection.only(&none).is_none());
        connection.note(&orders, &none);
        connection.note(&identity("shop/orders", "2"), &none);
        assert_eq!(connection.only(&none).unwrap().principal, orders.principal, "two keys, one service");
        let proxied =
            HeaderMap::from_iter([("x-forwarded-for".parse().unwrap(), HeaderValue::from_static("10.0.0.1"))]);
        assert!(connection.only(&proxied).is_none());
        connection.note(&cart, &none);
        connection.note(&orders, &none);
        assert!(connection.only(&none).is_none(), "for good");
        let shared = Connection::new([127, 0, 0, 1].into());
        shared.note(&orders, &proxied);
        assert!(shared.only(&none).is_none(), "a proxy may speak for anybody");
    }
}
