//! Opening: the connection, the streams, the constants that all nodes of a cluster share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_nats::{
    Client, ConnectOptions, ReconnectToServer,
    jetstream::{
        context::GetStreamErrorKind,
        kv,
        stream::{Config, DiscardPolicy, StorageType},
    },
    rustls::crypto::{CryptoProvider, ring},
};

use super::{
    config::{Login, NatsConfig, OpenError, is_recent},
    names::Names,
    wire::{Delays, Outgoing, Wire, delays},
};
use crate::store::{Error, Slot};

/// Number of the layout of subjects and headers.
const FORMAT: u32 = 1;
/// How a slot is derived from a key.
const HASH: &str = "xxh3-64 >> 52";
/// The one key of the bucket of constants.
const CONSTANTS: &str = "constants";
/// Identifiers of messages are not used; the servers keep them for at least this long.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(1);
/// How often a server is asked whether it is there, and how long connecting to one may take.
const PING_EVERY: Duration = Duration::from_secs(2);
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// There is no such stream.
const NO_STREAM: u64 = 10059;

#[derive(serde::Serialize, serde::Deserialize)]
struct Constants {
    format: u32,
    slots: u16,
    streams: u16,
    hash: String,
}

/// Connects and makes what is not there yet.
pub(super) async fn open(config: &NatsConfig) -> Result<Wire, OpenError> {
    config.check()?;
    // A host may have chosen a provider of its own; without one, two in a build would panic.
    if CryptoProvider::get_default().is_none() && ring::default_provider().install_default().is_err() {
        tracing::debug!("a provider of cryptography was installed meanwhile");
    }
    let client = connect(config).await?;
    let version = client.server_info().version;
    if !is_recent(&version) {
        return Err(OpenError::Version { found: version });
    }
    let wire = Wire::new(client, config.timeout, config.patience);
    agree(&wire, config).await?;
    let names = Names::new(&config.prefix, config.streams);
    for place in 0..config.streams {
        stream(&wire, config, names.stream(place), names.all(place), true).await?;
        // The first who makes it; that it is there already is as good.
        mark(&wire, names.mark(place)).await?;
    }
    stream(&wire, config, names.blobs(), names.blob_all(), false).await?;
    Ok(wire)
}

async fn connect(config: &NatsConfig) -> Result<Client, OpenError> {
    let mut delays = delays(config.patience);
    loop {
        let cause = match options(config).await?.connect(&config.servers).await {
            Ok(client) => return Ok(client),
            Err(error) => error.to_string(),
        };
        match delays.next() {
            Some(delay) => tokio::time::sleep(delay).await,
            None => return Err(OpenError::Connect { servers: config.servers.join(", "), cause }),
        }
    }
}

async fn options(config: &NatsConfig) -> Result<ConnectOptions, OpenError> {
    let mut options = ConnectOptions::new().name(&config.node).request_timeout(Some(config.timeout));
    // A server behind a cut wire is left after three pings, by default after three minutes.
    options = options.ping_interval(PING_EVERY).connection_timeout(CONNECT_TIMEOUT);
    // Each in turn, from anywhere: by itself the client returns to one that never failed, although it may be cut off.
    let next = Arc::new(AtomicUsize::new(rand::random_range(0..config.servers.len().max(1))));
    options = options.reconnect_to_server_callback(move |servers, _| {
        let at = next.fetch_add(1, Ordering::Relaxed) % servers.len().max(1);
        let chosen = servers.into_iter().nth(at).map(|server| ReconnectToServer { addr: server.addr, delay: None });
        std::future::ready(chosen)
    });
    options = match &config.login {
        Login::None => options,
        Login::Password { user, password } => options.user_and_password(user.clone(), password.clone()),
        Login::Credentials(path) => options.credentials_file(path).await.map_err(|error| {
            OpenError::Config(format!("the credentials in '{}' cannot be used: {error}", path.display()))
        })?,
    };
    if let Some(ca) = &config.tls.ca {
        options = options.add_root_certificates(ca.clone()).require_tls(true);
    }
    if let Some((certificate, key)) = &config.tls.client {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    Ok(options)
}

/// Writes the constants of a new cluster, or compares them with those of one that has begun.
async fn agree(wire: &Wire, config: &NatsConfig) -> Result<(), OpenError> {
    let bucket = Names::new(&config.prefix, config.streams).meta();
    let ours = Constants { format: FORMAT, slots: Slot::COUNT, streams: config.streams, hash: HASH.into() };
    let value = serde_json::to_vec(&ours).map_err(|error| OpenError::JetStream(error.to_string()))?;
    let mut delays = wire.delays();
    let found: Constants = loop {
        let why = match constants(wire, config, &bucket, &value).await {
            Ok(found) => break found,
            Err(error @ (OpenError::Replicas { .. } | OpenError::Constants { .. })) => return Err(error),
            Err(error) => error,
        };
        pause(&mut delays, why).await?;
    };
    let differs = |what, found: &dyn ToString, ours: &dyn ToString| {
        let (found, ours) = (found.to_string(), ours.to_string());
        if found == ours { Ok(()) } else { Err(OpenError::Constants { what, found, ours }) }
    };
    differs("format", &found.format, &ours.format)?;
    differs("slots", &found.slots, &ours.slots)?;
    differs("streams", &found.streams, &ours.streams)?;
    differs("hash", &found.hash, &ours.hash)
}

async fn constants(wire: &Wire, config: &NatsConfig, bucket: &str, ours: &[u8]) -> Result<Constants, OpenError> {
    let failed = |error: &dyn std::fmt::Display| OpenError::JetStream(error.to_string());
    let store = if let Ok(store) = wire.jetstream.get_key_value(bucket).await {
        store
    } else {
        let made = kv::Config {
            bucket: bucket.into(),
            history: 1,
            storage: StorageType::File,
            num_replicas: config.replicas,
            ..kv::Config::default()
        };
        wire.jetstream.create_key_value(made).await.map_err(|error| refused(config, bucket, &chain(&error)))?
    };
    let written = match store.create(CONSTANTS, ours.to_vec().into()).await {
        Ok(_) => ours.to_vec(),
        Err(error) if error.kind() == kv::CreateErrorKind::AlreadyExists => {
            let found = store.get(CONSTANTS).await.map_err(|error| failed(&error))?;
            found.ok_or_else(|| failed(&"a replica lacks the constants"))?.to_vec()
        }
        Err(error) => return Err(failed(&error)),
    };
    serde_json::from_slice(&written).map_err(|error| OpenError::Constants {
        what: "constants",
        found: String::from_utf8_lossy(&written).into_owned(),
        ours: format!("no such form ({error})"),
    })
}

/// An error with everything below it, where the servers' own words are.
fn chain(error: &dyn std::error::Error) -> String {
    let below = std::iter::successors(error.source(), |error| error.source());
    below.fold(error.to_string(), |all, error| format!("{all}: {error}"))
}

/// What a refusal to make a stream means.
fn refused(config: &NatsConfig, stream: &str, why: &str) -> OpenError {
    if ["replicas > 1 not supported", "no suitable peers", "insufficient resources"]
        .iter()
        .any(|said| why.contains(said))
    {
        OpenError::Replicas { stream: stream.into(), asked: config.replicas, cause: why.into() }
    } else {
        OpenError::JetStream(why.into())
    }
}

async fn pause(delays: &mut Delays, why: OpenError) -> Result<(), OpenError> {
    let delay = delays.next().ok_or(why)?;
    tokio::time::sleep(delay).await;
    Ok(())
}

/// Makes a stream, or looks at one that is there.
async fn stream(wire: &Wire, config: &NatsConfig, name: String, all: String, is_fenced: bool) -> Result<(), OpenError> {
    let wanted = Config {
        name: name.clone(),
        subjects: vec![all],
        storage: StorageType::File,
        num_replicas: config.replicas,
        // The newest of each subject, for ever: a limit would drop records silently.
        max_messages_per_subject: 1,
        discard: DiscardPolicy::Old,
        max_messages: -1,
        max_bytes: -1,
        allow_direct: true,
        mirror_direct: false,
        allow_atomic_publish: is_fenced,
        allow_message_ttl: is_fenced,
        duplicate_window: DUPLICATE_WINDOW,
        ..Config::default()
    };
    let mut delays = wire.delays();
    let info = loop {
        let why = match wire.jetstream.get_stream(&name).await {
            Ok(stream) => break stream.cached_info().config.clone(),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(error) if error.error_code().0 == NO_STREAM => {
                    match wire.jetstream.create_stream(wanted.clone()).await {
                        Ok(stream) => break stream.cached_info().config.clone(),
                        Err(error) => refused(config, &name, &chain(&error)),
                    }
                }
                GetStreamErrorKind::EmptyName
                | GetStreamErrorKind::Request
                | GetStreamErrorKind::InvalidStreamName
                | GetStreamErrorKind::JetStream(_) => OpenError::JetStream(chain(&error)),
            },
        };
        // A cluster that is just starting has not counted its servers yet.
        pause(&mut delays, why).await?;
    };
    if info.num_replicas < config.replicas {
        let cause = format!("it has {}", info.num_replicas);
        return Err(OpenError::Replicas { stream: name, asked: config.replicas, cause });
    }
    let same = |what: &str, is: bool| {
        if is { Ok(()) } else { Err(OpenError::Stream { stream: name.clone(), what: what.into() }) }
    };
    same("more than the newest message of a subject", info.max_messages_per_subject == 1)?;
    same("other subjects", info.subjects == wanted.subjects)?;
    same("a limit that drops records", info.max_messages <= 0 && info.max_bytes <= 0 && info.max_age.is_zero())?;
    same("no direct reads", info.allow_direct)?;
    same("no atomic batches", info.allow_atomic_publish || !is_fenced)?;
    same("storage in memory", info.storage == StorageType::File)
}

async fn mark(wire: &Wire, subject: String) -> Result<(), OpenError> {
    let mut message = Outgoing::new(subject.clone(), "");
    message.expect(0, &subject);
    match wire.store_again(message).await {
        Ok(_) => Ok(()),
        // There already.
        Err(Error::Unavailable(why)) if &*why == super::wire::CAME_BETWEEN => Ok(()),
        Err(error) => Err(OpenError::JetStream(error.to_string())),
    }
}
