//! Calls between nodes over gRPC: each node keeps one long-lived stream to every other, on which it asks and hears the
//! answers; so between two nodes there are two, and nobody has to agree on who dials.
//!
//! Frames carry a number that tells answers apart, and travel in batches: whatever waits when the wire has room goes in
//! one message. A call is sent at most once. If the stream breaks, calls that were handed to it are unanswered, those that
//! were not are *not sent*, and may be sent again. Who does not read is not written to: a stream has a bound of calls
//! under way at both ends.
//!
//! Nobody but nodes may connect: both ends show a certificate of the cluster's own authority that names the node, and the
//! first frame names the cluster, who speaks and who is meant.

mod client;
mod frames;
mod server;
#[cfg(test)]
mod tests;

use std::{net::IpAddr, sync::Arc, time::Duration};

use rustls_pki_types::{CertificateDer, ServerName};
use tonic::{
    Status,
    transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig},
};
use webpki::EndEntityCert;

use super::NodeId;

pub use client::Transport;
pub use server::{ServeError, serve};

/// Where the stream is served.
const SERVICE: &str = "twin.cluster.v1.Link";
/// The stream itself.
const PATH: &str = "/twin.cluster.v1.Link/Speak";
/// What the frames mean; both ends must speak the same.
const VERSION: u32 = 2;
/// Largest call or answer, in bytes.
pub const CALL_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A batch is sent once it has so many bytes; the last frame may be as large as any.
const BATCH_BYTES: usize = 256 * 1024;
/// Most frames of a batch.
const BATCH_FRAMES_MAX: usize = 512;
/// Largest message of the stream.
const MESSAGE_BYTES_MAX: usize = BATCH_BYTES + CALL_BYTES_MAX + 64 * 1024;
/// How often a quiet connection is asked whether it lives, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(5);
/// Bytes of a connection that may be under way before the other end has read them.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// How nodes know each other.
#[derive(Clone)]
pub enum Security {
    /// Both ends show a certificate that this authority signed, which signs for nobody but nodes of this cluster.
    Mutual {
        /// Certificate of the authority, PEM.
        authority: Vec<u8>,
        /// This node's certificate, PEM; it names the node, as a DNS name.
        certificate: Vec<u8>,
        /// Its key, PEM.
        key: Vec<u8>,
    },
    /// Danger: whoever reaches the port may call. On loopback only.
    Plain,
}

/// Bounds and names of a node's links.
#[derive(Clone)]
pub struct Config {
    /// Name of the cluster; both ends must have the same.
    pub cluster: String,
    /// This node.
    pub node: NodeId,
    /// How nodes know each other.
    pub security: Security,
    /// Calls under way on one stream.
    pub in_flight_max: usize,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
}

impl Config {
    /// What is usual.
    pub fn new(cluster: &str, node: NodeId, security: Security) -> Self {
        Self { cluster: cluster.into(), node, security, in_flight_max: 4096, connect_timeout: Duration::from_secs(3) }
    }
}

impl std::fmt::Debug for Security {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Mutual { .. } => "Mutual",
            Self::Plain => "Plain",
        })
    }
}

impl Security {
    /// Whether whoever says that it is this node has shown a certificate of that name.
    fn check_name(&self, shown: &[CertificateDer<'_>], from: &str) -> Result<(), Status> {
        match self {
            Self::Plain => Ok(()),
            Self::Mutual { .. } => {
                let is_of = |der: &CertificateDer<'_>| {
                    let name = ServerName::try_from(from).ok()?;
                    EndEntityCert::try_from(der).ok()?.verify_is_valid_for_subject_name(&name).ok()
                };
                shown.first().and_then(is_of).ok_or_else(|| {
                    Status::permission_denied(format!(
                        "the certificate shown is not of the node '{}'",
                        from.escape_debug()
                    ))
                })
            }
        }
    }

    fn of_client(&self, node: &NodeId, host: &str) -> Result<Option<ClientTlsConfig>, Arc<str>> {
        match self {
            Self::Mutual { authority, certificate, key } => Ok(Some(
                ClientTlsConfig::new()
                    .ca_certificate(Certificate::from_pem(authority))
                    .identity(Identity::from_pem(certificate, key))
                    // The node is meant, wherever it is.
                    .domain_name(node.as_str()),
            )),
            Self::Plain if is_loopback(host) => Ok(None),
            Self::Plain => Err(format!("without TLS, '{host}' is not called: it is not loopback").into()),
        }
    }

    fn of_server(&self, host: &str) -> Result<Option<ServerTlsConfig>, Arc<str>> {
        match self {
            Self::Mutual { authority, certificate, key } => Ok(Some(
                ServerTlsConfig::new()
                    .client_ca_root(Certificate::from_pem(authority))
                    .identity(Identity::from_pem(certificate, key)),
            )),
            Self::Plain if is_loopback(host) => Ok(None),
            Self::Plain => Err(format!("without TLS, '{host}' is not served: it is not loopback").into()),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The host of `host:port`.
fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']'])
}
