//! A node's configuration: defaults, then a file, then the environment, then flags, each stronger than the one before.
//!
//! Alone in reading files and environment. Each part belongs to the module that obeys it.

#[cfg(feature = "cluster")]
mod cluster;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use figment::{
    Figment, Metadata, Profile, Provider,
    providers::{Env, Format as _, Serialized, Toml},
};
use serde::{Deserialize, Serialize};

#[cfg(feature = "cluster")]
pub use cluster::ClusterConfig;

use crate::{
    runtime, server,
    store::Level,
    twin::service::{Settings, settings},
};

/// The file that is read if it exists and no other one is named.
pub const FILE: &str = "twin.toml";
/// Environment variables start so; `TWIN_SERVER__DEADLINE_S` is `deadline_s` of `[server]`.
pub const PREFIX: &str = "TWIN_";

/// Everything a node can be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Allows an address beyond loopback without TLS: everything, keys included, then travels in the clear.
    pub insecure_listen: bool,
    /// Where the store, the first operator key and the key that signs tokens lie.
    pub data_dir: PathBuf,
    /// The key that wraps what secrets are sealed with: 64 hexadecimal digits. Without one, `secrets_key_file`.
    pub secrets_key: Hidden,
    /// The file that holds that key; `secrets.key` in `data_dir` if empty. It is made if it is not there.
    pub secrets_key_file: PathBuf,
    /// The file with the key that signs tokens. Without one it is made at the first start: token.key in `data_dir`, or,
    /// if nothing is kept there, one that is gone with the process.
    pub token_key_file: Option<PathBuf>,
    /// How long a shutdown may take, in seconds.
    pub drain_s: u64,
    /// The store.
    pub store: StoreConfig,
    /// The doors.
    pub server: server::Config,
    /// The other nodes.
    #[cfg(feature = "cluster")]
    pub cluster: ClusterConfig,
    /// The virtual actors.
    pub runtime: RuntimeConfig,
    /// What of service twins an operator chooses.
    pub service: Settings,
    /// What is logged.
    pub log: LogConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7070)),
            insecure_listen: false,
            data_dir: PathBuf::from("twin-data"),
            secrets_key: Hidden::default(),
            secrets_key_file: PathBuf::new(),
            token_key_file: None,
            drain_s: 25,
            store: StoreConfig::default(),
            server: server::Config::default(),
            #[cfg(feature = "cluster")]
            cluster: ClusterConfig::default(),
            runtime: RuntimeConfig::default(),
            service: Settings::default(),
            log: LogConfig::default(),
        }
    }
}

/// A text that is not shown again.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Hidden(pub String);

impl Serialize for Hidden {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.0.is_empty() { "" } else { "(hidden)" })
    }
}

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "(hidden)" })
    }
}

/// Where twins rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreKind {
    /// On disk, in `data_dir`.
    Sled,
    /// Nowhere: everything is gone with the process.
    Memory,
}

/// How twins rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// Where.
    pub kind: StoreKind,
    /// What a commit survives.
    pub level: Level,
    /// Cache of the store, in MiB.
    pub cache_mib: u64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { kind: StoreKind::Sled, level: Level::Fsync, cache_mib: 64 }
    }
}

/// Bounds of the virtual actors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeConfig {
    /// Threads that host twins; 0 means one per core.
    pub threads: usize,
    /// After how many seconds without a message a twin leaves memory.
    pub idle_s: u64,
    /// Resident MiB of all twins of one kind above which idle ones leave early.
    pub resident_mib: usize,
    /// How often what a busy twin observed is saved, in seconds.
    pub save_every_s: u64,
    /// What all observations together may write, in KiB a second.
    pub save_kib_per_s: u32,
    /// Events kept for streams that resume.
    pub events_kept: usize,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        let defaults = runtime::Config::default();
        Self {
            threads: defaults.arbiters,
            idle_s: defaults.idle_after.as_secs(),
            resident_mib: defaults.resident_bytes_max >> 20,
            save_every_s: defaults.save_every.as_secs(),
            save_kib_per_s: defaults.save_kib_per_s,
            events_kept: defaults.events_kept,
        }
    }
}

impl RuntimeConfig {
    /// The same in the runtime's own terms.
    pub fn runtime(&self) -> runtime::Config {
        runtime::Config {
            arbiters: self.threads,
            idle_after: Duration::from_secs(self.idle_s),
            resident_bytes_max: self.resident_mib << 20,
            save_every: Duration::from_secs(self.save_every_s),
            save_kib_per_s: self.save_kib_per_s,
            events_kept: self.events_kept,
            ..runtime::Config::default()
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// What a reply survives, as a flag says it; the store's own word is [`Level`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Durability {
    /// Nothing: what was acknowledged within the last half second may be gone after a crash of the process
    Buffered,
    /// The end of the process, kill -9 included, but no power loss
    Flushed,
    /// Power loss too
    Fsync,
}

impl From<Durability> for Level {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Buffered => Self::Buffered,
            Durability::Flushed => Self::Flushed,
            Durability::Fsync => Self::Fsync,
        }
    }
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// Which lines there are, as in `info,service_twin=debug`.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".to_owned() }
    }
}

/// What the command line can say; what it does not say is left to environment, file and defaults.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
pub struct Flags {
    /// Configuration file [default: twin.toml, if there is one]
    #[cfg_attr(feature = "cli", arg(long, value_name = "FILE"))]
    pub config: Option<PathBuf>,
    /// Where to listen [default: 127.0.0.1:7070]
    #[cfg_attr(feature = "cli", arg(long, value_name = "ADDRESS:PORT"))]
    pub listen: Option<SocketAddr>,
    /// Listen beyond loopback without TLS; keys then travel in the clear
    #[cfg_attr(feature = "cli", arg(long))]
    pub insecure_listen: bool,
    /// Where the store and the first operator key lie; every command of `twin` has this flag.
    #[cfg_attr(feature = "cli", arg(skip))]
    pub data_dir: Option<PathBuf>,
    /// Keep everything in memory only; it is gone with the process
    #[cfg_attr(feature = "cli", arg(long))]
    pub memory: bool,
    /// What a reply survives [default: fsync]
    #[cfg_attr(feature = "cli", arg(long, value_enum, value_name = "LEVEL"))]
    pub durability: Option<Durability>,
    /// Share the twins of these NATS servers with other nodes, as in nats://a:4222,nats://b:4222,nats://c:4222; see
    /// `twin cluster --help`
    #[cfg(feature = "cluster")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "SERVERS", value_delimiter = ','))]
    pub cluster: Vec<String>,
    /// This node's name in the cluster [default: the machine's]
    #[cfg(feature = "cluster")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME"))]
    pub node: Option<String>,
    /// Where to listen for the other nodes of the cluster [default: 127.0.0.1:7071]
    #[cfg(feature = "cluster")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "ADDRESS:PORT"))]
    pub cluster_listen: Option<SocketAddr>,
    /// Take callers from this machine without a key for operators; for development only
    #[cfg_attr(feature = "cli", arg(long))]
    pub dev: bool,
    /// How log lines look [default: text]
    #[cfg_attr(feature = "cli", arg(long, value_enum, value_name = "FORMAT"))]
    pub log_format: Option<LogFormat>,
    /// Which log lines there are, as in `info,service_twin=debug` [default: info]
    #[cfg_attr(feature = "cli", arg(long, value_name = "FILTER"))]
    pub log: Option<String>,
    /// Any other setting by its full name, as in `--set service.series_max=16`; may be given more than once
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME=VALUE", value_parser = assignment))]
    pub set: Vec<(String, String)>,
}

/// Parses `NAME=VALUE`.
#[cfg(feature = "cli")]
fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.trim().to_owned())),
        Some(_) | None => Err("write NAME=VALUE, such as service.series_max=16".to_owned()),
    }
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that was named does not exist.
    #[error("the configuration file '{}' does not exist", .0.display())]
    NoFile(PathBuf),
    /// A value cannot be understood.
    #[error("the configuration cannot be understood: {0}")]
    Value(Box<figment::Error>),
    /// A name that is no setting.
    #[error("the configuration cannot be understood: {cause}; {hint}")]
    Unknown {
        /// Which, and where it was found.
        cause: Box<figment::Error>,
        /// What was probably meant.
        hint: String,
    },
    /// An address others can reach, in the clear.
    #[error(
        "'{0}' can be reached from other machines and this release has no TLS of its own: listen on 127.0.0.1 and put a \
         TLS proxy in front, or accept that keys travel in the clear with insecure_listen = true (--insecure-listen)"
    )]
    Exposed(SocketAddr),
    /// Settings of service twins that cannot be used.
    #[error(transparent)]
    Service(#[from] settings::Unusable),
    /// A node of a cluster that would be unsafe or could not work.
    #[error("{0}")]
    Cluster(&'static str),
    /// A bound that no node could work with.
    #[error("{0} must be at least {1}")]
    TooSmall(&'static str, u64),
}

impl From<figment::Error> for Error {
    fn from(error: figment::Error) -> Self {
        if let figment::error::Kind::UnknownField(found, among) = &error.kind {
            let hint = hint(found, among);
            return Self::Unknown { cause: Box::new(error), hint };
        }
        Self::Value(Box::new(error))
    }
}

/// The setting whose name is nearest to a word that is none.
fn hint(found: &str, among: &[&str]) -> String {
    const ALL: &str = "'twin serve --print-config' shows every setting";
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let nearest = Config::names()
        .into_iter()
        .map(|name| {
            let depth = name.matches('.').count();
            (strsim::levenshtein(found, &last(&name)), !among.contains(&&*last(&name)), depth, name)
        })
        .min()
        .filter(|(distance, ..)| *distance <= found.len().div_ceil(3));
    match nearest {
        Some((.., name)) => format!("did you mean '{name}'? {ALL}"),
        None => ALL.to_owned(),
    }
}

/// One `--set NAME=VALUE`, so that an error names the flag.
struct Set<'a>(&'a str, figment::value::Value);

impl Provider for Set<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named("--set")
    }

    fn data(&self) -> Result<figment::value::Map<Profile, figment::value::Dict>, figment::Error> {
        (self.0, &self.1).data()
    }
}

impl Config {
    /// Assembles the configuration of this process.
    pub fn load(flags: &Flags) -> Result<Self, Error> {
        let file = match &flags.config {
            Some(file) if !file.is_file() => return Err(Error::NoFile(file.clone())),
            Some(file) => file,
            None => Path::new(FILE),
        };
        let mut config = Self::layered(file, &flags.set)?;
        flags.apply(&mut config);
        config.check()?;
        Ok(config)
    }

    fn layered(file: &Path, set: &[(String, String)]) -> Result<Self, Error> {
        let defaults = Self::default();
        let parts = defaults.tree();
        // Other variables may start alike, such as TWIN_KEY of `twin`'s own commands; but a section is only meant for us.
        let ours = move |name: &figment::value::UncasedStr| {
            name.as_str().contains("__") || parts.keys().any(|part| part.eq_ignore_ascii_case(name.as_str()))
        };
        let mut figment = Figment::from(Serialized::defaults(defaults.clone()));
        if file.is_file() {
            figment = figment.merge(Toml::file_exact(file));
        }
        figment = figment.merge(Env::prefixed(PREFIX).filter(ours).split("__"));
        for (name, value) in set {
            // Whatever is no number, flag or list is a text.
            let value: figment::value::Value = value.parse().unwrap_or_else(|never| match never {});
            figment = figment.merge(Set(name, value));
        }
        figment.extract().map_err(Error::from)
    }

    /// These settings as a file that says them all.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    fn tree(&self) -> serde_json::Map<String, serde_json::Value> {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(tree)) => tree,
            Ok(_) | Err(_) => serde_json::Map::new(),
        }
    }

    /// Every section, and every setting by its full name, such as `server.deadline_s`.
    fn names() -> Vec<String> {
        let mut names = Vec::new();
        for (part, value) in Self::default().tree() {
            names.extend(
                value.as_object().into_iter().flat_map(|fields| fields.keys()).map(|field| format!("{part}.{field}")),
            );
            names.push(part);
        }
        names
    }

    /// Refuses what would be unsafe or could not work.
    pub fn check(&self) -> Result<(), Error> {
        if !self.insecure_listen && !self.listen.ip().is_loopback() {
            return Err(Error::Exposed(self.listen));
        }
        self.service.check()?;
        #[cfg(feature = "cluster")]
        self.check_cluster()?;
        let at_least = [
            ("server.connections_max", self.server.connections_max, 1),
            ("server.body_bytes_max", self.server.body_bytes_max, 1024),
            ("server.calls_per_service_max", self.server.calls_per_service_max, 1),
            ("server.otlp_bytes_max", self.server.otlp_bytes_max, 1024),
            ("runtime.resident_mib", self.runtime.resident_mib, 1),
            ("runtime.events_kept", self.runtime.events_kept, 1),
        ];
        for (name, given, least) in at_least {
            if given < least {
                return Err(Error::TooSmall(name, u64::try_from(least).unwrap_or(u64::MAX)));
            }
        }
        let at_least = [
            ("server.header_timeout_s", self.server.header_timeout_s),
            ("server.stall_timeout_s", self.server.stall_timeout_s),
            ("server.deadline_s", self.server.deadline_s),
            ("runtime.save_every_s", self.runtime.save_every_s),
        ];
        match at_least.into_iter().find(|(_, given)| *given == 0) {
            Some((name, _)) => Err(Error::TooSmall(name, 1)),
            None => Ok(()),
        }
    }
}

impl Flags {
    fn apply(&self, config: &mut Config) {
        if let Some(listen) = self.listen {
            config.listen = listen;
        }
        if let Some(folder) = &self.data_dir {
            config.data_dir.clone_from(folder);
        }
        if let Some(format) = self.log_format {
            config.log.format = format;
        }
        if let Some(filter) = &self.log {
            config.log.filter.clone_from(filter);
        }
        if let Some(durability) = self.durability {
            config.store.level = durability.into();
        }
        if self.memory {
            config.store.kind = StoreKind::Memory;
        }
        #[cfg(feature = "cluster")]
        {
            let cluster = &mut config.cluster;
            if !self.cluster.is_empty() {
                cluster.servers.clone_from(&self.cluster);
            }
            if let Some(node) = &self.node {
                cluster.node.clone_from(node);
            }
            if let Some(listen) = self.cluster_listen {
                cluster.listen = listen;
            }
        }
        config.insecure_listen |= self.insecure_listen;
        config.server.anonymous_loopback |= self.dev;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_beats_a_default_and_a_flag_beats_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("twin.toml");
        std::fs::write(
            &file,
            "listen = '127.0.0.1:1'\ndrain_s = 3\n[server]\ndeadline_s = 7\n[store]\nlevel = 'flushed'\n",
        )
        .unwrap();
        let flags = Flags { config: Some(file), listen: "127.0.0.1:2".parse().ok(), dev: true, ..Flags::default() };
        let config = Config::load(&flags).unwrap();
        assert_eq!((config.listen.port(), config.drain_s, config.server.deadline_s), (2, 3, 7));
        assert_eq!((config.store.level, config.store.cache_mib), (Level::Flushed, 64));
        assert!(config.server.anonymous_loopback);
    }

    #[test]
    fn a_word_that_is_not_known_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("twin.toml");
        std::fs::write(&file, "[server]\ndeadlin_s = 7\n").unwrap();
        let error = Config::load(&Flags { config: Some(file.clone()), ..Flags::default() }).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("deadlin_s") && error.contains("twin.toml"), "{error}");
        assert!(error.contains("did you mean 'server.deadline_s'?"), "{error}");
        for (wrong, meant) in [("deadline_s", "server.deadline_s"), ("lissten", "listen"), ("[sever]\nx", "server")] {
            std::fs::write(&file, format!("{wrong} = 7\n")).unwrap();
            let error =
                Config::load(&Flags { config: Some(file.clone()), ..Flags::default() }).unwrap_err().to_string();
            assert!(error.contains(&format!("did you mean '{meant}'?")), "{wrong}: {error}");
        }
        let set = vec![("service.serie_max".to_owned(), "7".to_owned())];
        let error = Config::load(&Flags { set, ..Flags::default() }).unwrap_err().to_string();
        assert!(error.contains("did you mean 'service.series_max'?") && error.contains("in --set"), "{error}");
        std::fs::write(&file, "zzzzzzzz = 7\n").unwrap();
        let error = Config::load(&Flags { config: Some(file), ..Flags::default() }).unwrap_err().to_string();
        assert!(!error.contains("did you mean") && error.contains("--print-config"), "{error}");
        let missing = Flags { config: Some(folder.path().join("none")), ..Flags::default() };
        assert!(matches!(Config::load(&missing), Err(Error::NoFile(_))));
    }

    #[test]
    fn what_is_printed_reads_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("twin.toml");
        let said = Flags {
            listen: "127.0.0.1:9".parse().ok(),
            data_dir: Some("a \"folder\"\n".into()),
            durability: Some(Durability::Flushed),
            set: [("service.series_max", "7"), ("service.resolutions", "[\"30 x 2s\", \"9 x 1m\", \"9 x 1h\"]")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            ..Flags::default()
        };
        let config = Config::load(&said).unwrap();
        assert_eq!((config.service.series_max, config.service.resolutions[0].bins), (7, 30));
        std::fs::write(&file, config.to_toml().unwrap()).unwrap();
        let read = Config::load(&Flags { config: Some(file), ..Flags::default() }).unwrap();
        assert_eq!(read, config);
        assert_eq!((read.store.level, read.listen.port()), (Level::Flushed, 9));
    }

    #[test]
    fn an_address_others_can_reach_is_refused_unless_asked_for() {
        let exposed = Config { listen: "0.0.0.0:7070".parse().unwrap(), ..Config::default() };
        assert!(matches!(exposed.check(), Err(Error::Exposed(_))));
        assert!(Config { insecure_listen: true, ..exposed }.check().is_ok());
        assert!(Config { listen: "[::1]:7070".parse().unwrap(), ..Config::default() }.check().is_ok());
    }
}
