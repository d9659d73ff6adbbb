//! Who spoke on a connection: for streams that some SDKs are known to open without their token.
//!
//! Python's SDK leaves the token out of some streams. Such a stream counts as the service whose token was sent on the
//! same connection before, if only one ever was; a second one clears that for good. Behind a proxy a connection says
//! nothing, so a request that came through one is refused.

use std::sync::Arc;

use axum::http::{HeaderMap, Request};
use parking_lot::Mutex;

use crate::{model::Principal, server::identity::Identity};

/// Headers that only a proxy sets.
const PROXIED: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

/// What one connection has shown.
#[derive(Clone, Debug, Default)]
pub struct Heard(Arc<Mutex<Spoken>>);

#[derive(Debug, Default)]
enum Spoken {
    #[default]
    Nobody,
    One(Identity),
    Several,
}

impl Heard {
    /// The request with what its connection has shown.
    pub fn beside<B>(&self, mut request: Request<B>) -> Request<B> {
        request.extensions_mut().insert(self.clone());
        request
    }

    /// Notes who has just shown a token that counts.
    pub fn note(&self, identity: &Identity) {
        let mut spoken = self.0.lock();
        let next = match &*spoken {
            Spoken::Nobody => Spoken::One(identity.clone()),
            Spoken::One(known) if speaks_for(known) == speaks_for(identity) => return,
            Spoken::One(_) | Spoken::Several => Spoken::Several,
        };
        *spoken = next;
    }

    /// The only one who ever spoke on this connection.
    pub fn only(&self, headers: &HeaderMap) -> Option<Identity> {
        if PROXIED.iter().any(|name| headers.contains_key(*name)) {
            return None;
        }
        match &*self.0.lock() {
            Spoken::One(identity) => Some(identity.clone()),
            Spoken::Nobody | Spoken::Several => None,
        }
    }
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

    fn identity(service: &str) -> Identity {
        let service = ServiceId::parse(service).unwrap();
        Identity::without_token(Principal::Service { key_id: service.as_str().into(), service })
    }

    #[test]
    fn a_connection_speaks_for_the_only_one_it_heard_and_for_nobody_after_a_second() {
        let (heard, none) = (Heard::default(), HeaderMap::new());
        assert!(heard.only(&none).is_none());
        heard.note(&identity("shop/orders"));
        heard.note(&identity("shop/orders"));
        assert_eq!(heard.only(&none).unwrap().principal, identity("shop/orders").principal);
        let proxied =
            HeaderMap::from_iter([("x-forwarded-for".parse().unwrap(), HeaderValue::from_static("10.0.0.1"))]);
        assert!(heard.only(&proxied).is_none());
        heard.note(&identity("shop/cart"));
        heard.note(&identity("shop/orders"));
        assert!(heard.only(&none).is_none(), "for good");
    }
}
