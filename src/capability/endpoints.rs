//! Endpoints: where the node finds applications of a service that open no channel to it.
//!
//! An endpoint is one instance's address, `http://HOST:PORT`. That it is registered allows nothing: whoever connects to it
//! asks for [`egress`](super::egress).

use std::net::{Ipv4Addr, Ipv6Addr};

use compact_str::{CompactString, format_compact};
use serde::{Deserialize, Serialize};

use super::{Registry, check_name};
use crate::{
    model::Timestamp,
    twin::{
        Event, Rejection, Terms,
        part::{Part, PartTurn, Request, Ruling},
    },
};

/// Most endpoints of a service.
pub const ENDPOINTS_MAX: usize = 16;
/// Longest name of an instance, in bytes.
pub const INSTANCE_BYTES_MAX: usize = 128;
/// Longest host, in bytes: of any name (RFC 1035, section 2.3.4) with a scope around it.
const HOST_BYTES_MAX: usize = 232;
/// Longest part of a host between dots, in bytes.
const LABEL_BYTES_MAX: usize = 63;
/// The one scheme.
const SCHEME: &str = "http://";
/// By this search term a node finds the twins that have endpoints.
pub const TERM: (&str, &str) = ("endpoints", "yes");

/// Hands part and requests to `registry`.
pub fn register(registry: &mut impl Registry) {
    registry.part::<Endpoints>();
    registry.request::<GetEndpoints>();
    registry.request::<SetEndpoint>();
    registry.request::<RemoveEndpoint>();
}

/// What an application speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP: paths of its own.
    #[default]
    Http,
    /// gRPC: services of its own.
    Grpc,
}

/// Where an application is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Which instance of the service it is.
    pub instance: CompactString,
    /// `http://HOST:PORT`, in its one spelling.
    pub url: CompactString,
    /// What it speaks.
    pub protocol: Protocol,
}

impl Endpoint {
    /// Reads an address as people write it.
    pub fn new(instance: &str, url: &str, protocol: Protocol) -> Result<Self, Rejection> {
        check_name("the name of an instance", instance, INSTANCE_BYTES_MAX)?;
        let url = spelled(url).ok_or_else(|| {
            Rejection::invalid("the URL of an endpoint is 'http://HOST:PORT', with no path, user or anything else")
        })?;
        Ok(Self { instance: instance.into(), url, protocol })
    }

    /// Host and port, as scopes of egress name them.
    pub fn authority(&self) -> &str {
        self.url.strip_prefix(SCHEME).unwrap_or(&self.url)
    }

    fn bytes(&self) -> usize {
        self.instance.len() + self.url.len()
    }
}

/// The one spelling of an address, so that a grant means one thing.
fn spelled(url: &str) -> Option<CompactString> {
    let (host, port) = url.strip_prefix(SCHEME)?.rsplit_once(':')?;
    let port = port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse::<u16>().ok())??;
    let is_label = |label: &str| {
        let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=LABEL_BYTES_MAX).contains(&label.len()) && label.bytes().all(is_fine)
    };
    let host = if let Some(v6) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        format_compact!("[{}]", v6.parse::<Ipv6Addr>().ok()?)
    } else if host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        format_compact!("{}", host.parse::<Ipv4Addr>().ok()?)
    } else if host.len() <= HOST_BYTES_MAX && host.split('.').all(is_label) {
        host.to_ascii_lowercase().into()
    } else {
        return None;
    };
    (port > 0).then(|| format_compact!("{SCHEME}{host}:{port}"))
}

/// The endpoints of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    endpoints: Vec<Endpoint>,
}

/// A fact about endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// One was registered, or is another one now.
    Registered {
        /// The endpoint.
        endpoint: Endpoint,
    },
    /// One was removed.
    Removed {
        /// Whose it was.
        instance: CompactString,
    },
}

impl Part for Endpoints {
    const NAME: &'static str = "endpoints";
    const SCHEMA: u16 = 1;
    type Change = Change;

    fn apply(&mut self, change: &Change, _: Timestamp) {
        match change {
            Change::Registered { endpoint } => {
                self.endpoints.retain(|known| known.instance != endpoint.instance);
                self.endpoints.push(endpoint.clone());
            }
            Change::Removed { instance } => self.endpoints.retain(|known| known.instance != *instance),
        }
    }

    fn event(&self, change: &Change) -> Option<Event> {
        let (name, data) = match change {
            Change::Registered { endpoint } => ("twin.endpoint.set", serde_json::json!({ "endpoint": endpoint })),
            Change::Removed { instance } => {
                ("twin.endpoint.removed", serde_json::json!({ "endpoint": { "instance": instance } }))
            }
        };
        Some(Event { name: name.into(), data: data.to_string().into_bytes().into() })
    }

    fn index(&self, terms: &mut Terms) {
        if !self.endpoints.is_empty() {
            terms.add(TERM.0, TERM.1);
        }
    }

    fn heap_bytes(&self) -> usize {
        let texts: usize = self.endpoints.iter().map(Endpoint::bytes).sum();
        self.endpoints.capacity() * size_of::<Endpoint>() + texts
    }
}

/// Lists the endpoints, in order of their instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetEndpoints;

impl Request for GetEndpoints {
    type Part = Endpoints;
    type Reply = Vec<Endpoint>;
    const OPERATION: &'static str = "list";
    const NAME: &'static str = "endpoints-list/1";
    const CREATES: bool = true;

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each("", "list");
    }

    fn decide(&self, part: &Endpoints, _: &PartTurn<'_>) -> Result<Ruling<Change, Self::Reply>, Rejection> {
        let mut endpoints = part.endpoints.clone();
        endpoints.sort_by(|one, other| one.instance.cmp(&other.instance));
        Ok(Ruling::new(endpoints))
    }
}

/// Registers an endpoint, or another one of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetEndpoint {
    /// The endpoint.
    pub endpoint: Endpoint,
}

impl Request for SetEndpoint {
    type Part = Endpoints;
    type Reply = ();
    const OPERATION: &'static str = "set";
    const NAME: &'static str = "endpoints-set/1";
    // Its door has the node look for endpoints anew.
    const IS_PUBLIC: bool = false;
    const CREATES: bool = true;

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each(&self.endpoint.instance, "set");
    }

    fn heap_bytes(&self) -> usize {
        self.endpoint.bytes()
    }

    fn decide(&self, part: &Endpoints, _: &PartTurn<'_>) -> Result<Ruling<Change, ()>, Rejection> {
        let Endpoint { instance, url, protocol } = &self.endpoint;
        let endpoint = Endpoint::new(instance, url, *protocol)?;
        if part.endpoints.contains(&endpoint) {
            return Ok(Ruling::new(()));
        }
        let others = part.endpoints.iter().filter(|known| known.instance != *instance).count();
        Rejection::within("endpoints", ENDPOINTS_MAX, others + 1)?;
        Ok(Ruling::new(()).change(Change::Registered { endpoint }))
    }
}

/// Removes an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveEndpoint {
    /// Whose it is.
    pub instance: CompactString,
}

impl Request for RemoveEndpoint {
    type Part = Endpoints;
    type Reply = ();
    const OPERATION: &'static str = "remove";
    const NAME: &'static str = "endpoints-remove/1";
    // Its door has the node look for endpoints anew.
    const IS_PUBLIC: bool = false;

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each(&self.instance, "remove");
    }

    fn heap_bytes(&self) -> usize {
        self.instance.len()
    }

    fn decide(&self, part: &Endpoints, _: &PartTurn<'_>) -> Result<Ruling<Change, ()>, Rejection> {
        if part.endpoints.iter().all(|known| known.instance != self.instance) {
            return Err(Rejection::not_found("an endpoint of this instance"));
        }
        Ok(Ruling::new(()).change(Change::Removed { instance: self.instance.clone() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_spelling_and_nothing_but_host_and_port() {
        let of = |url: &str| Endpoint::new("i1", url, Protocol::Http).map(|endpoint| endpoint.authority().to_owned());
        assert_eq!(of("http://Orders.Shop:08080").unwrap(), "orders.shop:8080");
        assert_eq!(of("http://[0:0::1]:80").unwrap(), "[::1]:80");
        assert_eq!(of("http://127.0.0.1:80").unwrap(), "127.0.0.1:80");
        for bad in [
            "",
            "orders:80",
            "https://orders:80",
            "http://orders",
            "http://orders:",
            "http://orders:0",
            "http://orders:+80",
            "http://orders:65536",
            "http://orders:80/",
            "http://user@orders:80",
            "http://orders:80?x",
            "http://:80",
            "http://a..b:80",
            "http://orders.:80",
            "http://127.1:80",
            "http://0127.0.0.1:80",
            "http://::1:80",
            "http://or ders:80",
            "http://orders#:80",
            "http://[fe80::1%25eth0]:80",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
