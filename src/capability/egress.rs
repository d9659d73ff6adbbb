//! Egress: where the node may connect to on behalf of a service.
//!
//! What is named in scopes is `HOST:PORT` as it was asked for, a name or an address: `egress:api.shop.example:8080`. An
//! address that is not for everybody on the internet takes a right of its own, whatever name led to it; see [`is_inner`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::Registry;
use crate::{
    model::Timestamp,
    twin::{
        Rejection,
        part::{Part, PartTurn, Request, Ruling},
    },
};

/// The right to connect.
pub const CONNECT: &str = "connect";
/// The right that an inner address takes besides.
pub const CONNECT_INNER: &str = "connect-inner";

/// Hands part and requests to `registry`.
pub fn register(registry: &mut impl Registry) {
    registry.part::<Egress>();
    registry.request::<Connect>();
}

/// Has no state: only the right is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Egress;

/// There are no facts about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {}

impl Part for Egress {
    const NAME: &'static str = "egress";
    const SCHEMA: u16 = 1;
    type Change = Change;

    fn apply(&mut self, change: &Change, _: Timestamp) {
        match *change {}
    }
}

/// Asks for the right to connect; nothing is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// Host and port.
    pub name: CompactString,
    /// Whether an address that it stands for is an inner one.
    pub is_inner: bool,
}

impl Request for Connect {
    type Part = Egress;
    type Reply = ();
    const OPERATION: &'static str = CONNECT;
    const NAME: &'static str = "egress-connect/1";
    const IS_PUBLIC: bool = false;
    const CREATES: bool = true;

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each(&self.name, CONNECT);
        if self.is_inner {
            each(&self.name, CONNECT_INNER);
        }
    }

    fn heap_bytes(&self) -> usize {
        self.name.len()
    }

    fn decide(&self, _: &Egress, _: &PartTurn<'_>) -> Result<Ruling<Change, ()>, Rejection> {
        Ok(Ruling::new(()))
    }
}

/// IPv4 that is not globally reachable, or may lead to what is not: the IANA registry of special-purpose addresses
/// (RFC 6890), multicast, and what is reserved.
const INNER_V4: [(Ipv4Addr, u32); 15] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Global unicast (RFC 4291): of IPv6 nothing else is reachable from everywhere.
const GLOBAL_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
/// What is special within that: protocol assignments with Teredo, documentation, 6to4, documentation.
const INNER_V6: [(Ipv6Addr, u32); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// Whether an address is not for everybody on the internet: loopback, link-local, private, shared, unspecified,
/// multicast, or special in another way, also if it is written or tunnelled as one of IPv6.
pub fn is_inner(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let is_in = |(net, length): &(Ipv4Addr, u32)| (v4.to_bits() ^ net.to_bits()) >> (32 - length) == 0;
            INNER_V4.iter().any(is_in)
        }
        IpAddr::V6(v6) => {
            let is_in = |(net, length): &(Ipv6Addr, u32)| (v6.to_bits() ^ net.to_bits()) >> (128 - length) == 0;
            !is_in(&GLOBAL_V6) || INNER_V6.iter().any(is_in)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_not_for_everybody_is_inner_however_it_is_written() {
        for inner in [
            "127.0.0.1",
            "127.255.255.254",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "169.254.169.254",
            "198.19.0.1",
            "224.0.0.1",
            "239.255.255.255",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "fec0::1",
        ] {
            assert!(is_inner(inner.parse().unwrap()), "{inner}");
        }
        for outer in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "2606:4700::1111",
            "2a00:1450::1",
            "2001:4860::8888",
        ] {
            assert!(!is_inner(outer.parse().unwrap()), "{outer}");
        }
    }
}
