//! How a node shares its twins with others.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::{Config, Error, Hidden};

/// How a node shares its twins with others, over NATS JetStream. Without servers it does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterConfig {
    /// Addresses of the NATS servers: `nats://host:port`, as many as there are.
    pub servers: Vec<String>,
    /// Name of the cluster; lets clusters share servers. The same for every node.
    pub name: String,
    /// This node's name, unlike any other's: letters, digits, `-` and `_`. Without one, the name of the machine.
    pub node: String,
    /// Where this node listens for the others.
    pub listen: SocketAddr,
    /// The `host:port` under which the others reach it, if not where it listens.
    pub advertise: String,
    /// The user of the NATS servers.
    pub user: String,
    /// The user's password.
    pub password: Hidden,
    /// A file with NATS credentials in the place of user and password.
    pub credentials_file: PathBuf,
    /// Certificate of the authority that signs for the servers and for the nodes. Without one nothing is encrypted, and
    /// then nodes listen on loopback only.
    pub ca_file: PathBuf,
    /// This node's certificate: shown to the servers and to other nodes.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
    /// Copies of everything that the servers keep; with one the death of a disk loses everything.
    pub replicas: usize,
    /// Streams over which slots are spread; fixed once the cluster has begun.
    pub streams: u16,
    /// How long a node that says nothing still counts as alive, in seconds. Servers take 4 to 9 seconds to elect a leader.
    pub ttl_s: u64,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            name: "twins".to_owned(),
            node: String::new(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7071)),
            advertise: String::new(),
            user: String::new(),
            password: Hidden::default(),
            credentials_file: PathBuf::new(),
            ca_file: PathBuf::new(),
            cert_file: PathBuf::new(),
            key_file: PathBuf::new(),
            replicas: 3,
            streams: 16,
            ttl_s: 15,
        }
    }
}

impl Config {
    pub(super) fn check_cluster(&self) -> Result<(), Error> {
        let cluster = &self.cluster;
        if cluster.servers.is_empty() {
            return Ok(());
        }
        let files = [&cluster.ca_file, &cluster.cert_file, &cluster.key_file];
        let stated = files.iter().filter(|file| !file.as_os_str().is_empty()).count();
        let shared = self.token_key_file.is_some()
            && (!self.secrets_key.0.is_empty() || !self.secrets_key_file.as_os_str().is_empty());
        let wrong = [
            (
                stated % 3 != 0,
                "cluster.ca_file, cluster.cert_file and cluster.key_file are given together, or none of them",
            ),
            (
                stated == 0 && !cluster.listen.ip().is_loopback(),
                "nodes that do not listen on loopback need certificates: set cluster.ca_file, cluster.cert_file and \
                 cluster.key_file; 'twin cluster init' makes them",
            ),
            (
                !shared,
                "the nodes of a cluster sign tokens and seal secrets with the same keys: give every node the same files \
                 by token_key_file and secrets_key_file; 'twin cluster init' makes them",
            ),
            (cluster.ttl_s < 3, "cluster.ttl_s must be at least 3"),
        ];
        match wrong.into_iter().find(|(is_so, _)| *is_so) {
            Some((_, why)) => Err(Error::Cluster(why)),
            None => Ok(()),
        }
    }
}
