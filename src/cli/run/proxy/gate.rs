//! What a request says of where it comes from.

use hyper::{
    HeaderMap, Uri,
    header::{AUTHORIZATION, HOST, HeaderName, HeaderValue, ORIGIN},
    http::uri::Authority,
};

use crate::{model::ServiceId, token, twin::keyring::Covers};

/// Where SDKs of Dapr put a token.
pub(super) const DAPR_TOKEN: HeaderName = HeaderName::from_static("dapr-api-token");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a call is not taken for one of the service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// A token that names somebody else, or nobody.
    #[error("invalid api token: this is the door of '{0}', and the call's token is not of that service")]
    AnotherToken(ServiceId),
    /// The peer.
    #[error("this call has no token and comes from a process of another user; send the service's DAPR_API_TOKEN")]
    AnotherUser,
    /// The peer cannot be known.
    #[error("this call has no token and it cannot be told whose process sends it; send the service's DAPR_API_TOKEN")]
    UnknownUser,
    /// `Host` or `:authority`.
    #[error(
        "this call has no token and is not for localhost, 127.0.0.1 or [::1]; use one of them, or send DAPR_API_TOKEN"
    )]
    Host,
    /// A browser speaks for another site.
    #[error("this call has no token and comes from a page of another site; only the service itself may go without")]
    AnotherSite,
}

/// Whether it carries a token. Each one must name the service; whether it is good, the node judges.
pub(super) fn has_token(headers: &HeaderMap, service: &ServiceId) -> Result<bool, Refusal> {
    let of_bearer = headers.get_all(AUTHORIZATION).iter().map(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    });
    let mut tokens = of_bearer.chain(headers.get_all(DAPR_TOKEN).iter().map(|value| value.to_str().ok())).peekable();
    let is_some = tokens.peek().is_some();
    let names_it = |text: Option<&str>| {
        let said = text.and_then(|text| token::show(text.trim()).ok());
        said.is_some_and(|said| matches!(said.covers, Covers::Service { service: named } if named == *service))
    };
    if tokens.all(names_it) { Ok(is_some) } else { Err(Refusal::AnotherToken(service.clone())) }
}

/// Refuses what a page of another site could have sent, whichever way it reached this port.
pub(super) fn judge(uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let of_host = headers.get_all(HOST).iter().map(|host| Authority::try_from(host.as_bytes()).ok());
    let mut hosts = uri.authority().map(|authority| Some(authority.clone())).into_iter().chain(of_host).peekable();
    let is_named = hosts.peek().is_some();
    if !is_named || !hosts.all(|host| host.is_some_and(|host| is_loopback(host.host()))) {
        return Err(Refusal::Host);
    }
    let is_own = |origin: &HeaderValue| {
        let origin = Uri::try_from(origin.as_bytes()).ok();
        origin.is_some_and(|origin| origin.host().is_some_and(is_loopback))
    };
    let is_same = |site: &HeaderValue| site == "same-origin" || site == "none";
    if headers.get_all(ORIGIN).iter().all(is_own) && headers.get_all(FETCH_SITE).iter().all(is_same) {
        Ok(())
    } else {
        Err(Refusal::AnotherSite)
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host == "127.0.0.1" || host == "[::1]"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(uri: &str, headers: &[(HeaderName, &'static str)]) -> Result<(), Refusal> {
        let pairs = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        judge(&uri.parse().unwrap(), &pairs.collect())
    }

    #[test]
    fn only_a_loopback_name_is_this_door() {
        for host in ["localhost", "LOCALHOST:3500", "127.0.0.1:3500", "[::1]:3500", "[::1]"] {
            assert_eq!(judged("/", &[(HOST, host)]), Ok(()), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "", "10.0.0.1", "localhost.", "a b"]
        {
            assert_eq!(judged("/", &[(HOST, host)]), Err(Refusal::Host), "{host}");
        }
        assert_eq!(judged("/", &[]), Err(Refusal::Host), "a host that is not said is none");
        assert_eq!(judged("http://localhost:1/", &[]), Ok(()), ":authority");
        assert_eq!(judged("http://localhost:1/", &[(HOST, "evil.example")]), Err(Refusal::Host));
        assert_eq!(judged("http://evil.example/", &[(HOST, "localhost")]), Err(Refusal::Host));
    }

    #[test]
    fn a_page_of_another_site_is_refused() {
        let host = (HOST, "localhost:3500");
        for origin in ["https://evil.example", "null", "file://", "http://localhost.evil.example"] {
            assert_eq!(judged("/", &[host.clone(), (ORIGIN, origin)]), Err(Refusal::AnotherSite), "{origin}");
        }
        assert_eq!(judged("/", &[host.clone(), (ORIGIN, "http://localhost:3500")]), Ok(()));
        for site in ["cross-site", "same-site", "?"] {
            assert_eq!(judged("/", &[host.clone(), (FETCH_SITE, site)]), Err(Refusal::AnotherSite), "{site}");
        }
        assert_eq!(judged("/", &[host, (FETCH_SITE, "none")]), Ok(()));
    }
}
