//! How a cluster's store is opened, and why it may not be.

use std::{path::PathBuf, time::Duration};

/// How the servers know this node.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Login {
    /// They ask for nothing, or the client certificate says it all.
    #[default]
    None,
    /// A user with a password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A file of credentials, as `nsc` writes them.
    Credentials(PathBuf),
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Password { user, .. } => f.debug_struct("Password").field("user", user).finish_non_exhaustive(),
            Self::Credentials(path) => f.debug_tuple("Credentials").field(path).finish(),
        }
    }
}

/// What this node trusts and shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificates of the authorities that are trusted instead of the system's; asks for TLS.
    pub ca: Option<PathBuf>,
    /// Certificate and key that this node shows.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// How a [`super::NatsStore`] is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsConfig {
    /// Addresses, all of the same cluster: `nats://host:port`.
    pub servers: Vec<String>,
    /// How the servers know this node.
    pub login: Login,
    /// What this node trusts and shows.
    pub tls: Tls,
    /// Start of the names of all streams, subjects and buckets; lets clusters share servers.
    pub prefix: String,
    /// Number of streams; fixed once the cluster has begun.
    pub streams: u16,
    /// Copies of everything; 1 keeps nothing if its one disk is lost.
    pub replicas: usize,
    /// This node's name.
    pub node: String,
    /// Which life of this node it is; grows from start to start.
    pub incarnation: u64,
    /// Commits of one stream that may wait; one more is handed back.
    pub queue: usize,
    /// How long one request may take. A commit without an answer by then has an unknown outcome.
    pub timeout: Duration,
    /// How long is tried again what certainly did not happen; an election of the servers takes 4 to 9 s.
    pub patience: Duration,
}

impl NatsConfig {
    /// The defaults for a node and its servers.
    pub fn new(node: impl Into<String>, servers: impl IntoIterator<Item = String>) -> Self {
        Self {
            servers: servers.into_iter().collect(),
            login: Login::None,
            tls: Tls::default(),
            prefix: "tw".into(),
            streams: 16,
            replicas: 3,
            node: node.into(),
            incarnation: 0,
            queue: 4096,
            timeout: Duration::from_secs(5),
            patience: Duration::from_secs(15),
        }
    }

    pub(super) fn check(&self) -> Result<(), OpenError> {
        let wrong = |what: &str| Err(OpenError::Config(what.into()));
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if self.prefix.is_empty() || self.prefix.len() > 32 || !plain(&self.prefix) {
            return wrong("the prefix is made of 1 to 32 letters, digits, '-' and '_'");
        }
        if self.node.is_empty() || self.node.len() > 128 {
            return wrong("a node's name has 1 to 128 bytes");
        }
        if !(1..=256).contains(&self.streams) {
            return wrong("there are 1 to 256 streams");
        }
        if !(1..=5).contains(&self.replicas) {
            return wrong("there are 1 to 5 replicas");
        }
        if self.queue == 0 || self.servers.is_empty() {
            return wrong("a queue and at least one server are needed");
        }
        Ok(())
    }
}

/// Why a cluster's store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The configuration contradicts itself.
    #[error("{0}")]
    Config(String),
    /// No server answers, or it refuses this node.
    #[error("no NATS server of {servers} can be used: {cause}; check the addresses, the login and the certificates")]
    Connect {
        /// Where it was tried.
        servers: String,
        /// What the last attempt said.
        cause: String,
    },
    /// The server lacks what this store rests on.
    #[error("nats-server {found} is too old: install 2.15 or later on every server")]
    Version {
        /// What it says of itself.
        found: String,
    },
    /// There are not as many copies as asked for.
    #[error(
        "'{stream}' cannot have {asked} replicas: {cause}; run that many servers as a cluster with JetStream, or ask for \
         fewer replicas"
    )]
    Replicas {
        /// The stream.
        stream: String,
        /// Asked for.
        asked: usize,
        /// What the servers say, or have.
        cause: String,
    },
    /// A stream is not as this store makes it.
    #[error("'{stream}' has {what}; it was changed by somebody else: set it back")]
    Stream {
        /// The stream.
        stream: String,
        /// What differs.
        what: String,
    },
    /// The cluster was begun with other constants.
    #[error(
        "this cluster has {what} = {found}, this node {ours}; give this node the cluster's, or another cluster.name"
    )]
    Constants {
        /// Which.
        what: &'static str,
        /// The cluster's.
        found: String,
        /// This node's.
        ours: String,
    },
    /// The servers did not do as asked.
    #[error("JetStream cannot be used: {0}")]
    JetStream(String),
    /// No thread could be started.
    #[error("the store's thread could not be started: {0}")]
    Thread(String),
}

/// Whether a server's version is 2.15 or later.
pub(super) fn is_recent(version: &str) -> bool {
    let mut parts = version.split(['.', '-']).map(|part| part.parse::<u32>().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) >= (2, 15),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_older_than_two_fifteen_are_refused() {
        for (version, recent) in [
            ("2.9.10", false),
            ("2.14.9", false),
            ("2.15.0", true),
            ("2.15.0-dev", true),
            ("2.15.1", true),
            ("2.100.0", true),
            ("3.0.0", true),
            ("1.99.0", false),
            ("", false),
            ("v2", false),
        ] {
            assert_eq!(is_recent(version), recent, "{version:?}");
        }
    }

    #[test]
    fn a_password_is_not_printed() {
        let login = Login::Password { user: "u".into(), password: "geheim".into() };
        assert!(!format!("{login:?}").contains("geheim"));
    }
}
