//! `twin cluster init`: what three servers and three nodes need, in files.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    net::IpAddr,
    path::{Path, PathBuf},
};

use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::{
    capability::secrets::seal::NodeKey,
    cli::{error::Error, print},
    token::RootKey,
};

/// Servers of a cluster, and nodes: as many as keep everything while one of them is gone.
const COUNT: u16 = 3;

/// What `twin cluster init` takes.
#[derive(Clone, Debug, Args)]
pub(super) struct InitArgs {
    /// The folder to write; it must not be there yet
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// Three names or addresses, one for each machine with a server and a node; all on this machine by default
    #[arg(long, value_name = "HOSTS", value_delimiter = ',')]
    hosts: Vec<String>,
    /// Port of the first server's clients, the first node's clients and the first node's links; others follow on one machine
    #[arg(long, value_name = "PORTS", num_args = 3, default_values_t = [4222, 7070, 7071])]
    ports: Vec<u16>,
    /// Name of the cluster
    #[arg(long, value_name = "NAME", default_value = "twins")]
    name: String,
}

struct Place {
    host: String,
    server: u16,
    routes: u16,
    http: u16,
    links: u16,
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Usage(error.to_string())
}

fn authority(name: &str) -> Result<Authority, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let pem = params.self_signed(&key)?.pem();
    Ok(Authority { issuer: Issuer::new(params, key), pem })
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Certificate and key for one host: as a server and as a client, since links go both ways.
fn certificate(authority: &Authority, name: &str, host: &str) -> Result<(String, String), rcgen::Error> {
    // Its name as well: nodes know each other by it.
    let mut hosts = vec![name.to_owned(), "localhost".to_owned(), "127.0.0.1".to_owned()];
    if !hosts.iter().any(|known| known == host) {
        hosts.push(host.to_owned());
    }
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name = named(name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate()?;
    Ok((params.signed_by(&key, &authority.issuer)?.pem(), key.serialize_pem()))
}

/// Writes a file that only its owner reads.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(file)?.write_all(text.as_bytes())
}

fn password() -> String {
    NodeKey::draw().1.to_string()
}

/// The `host:port` of a URL.
fn at(host: &str, port: u16) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{address}]:{port}"),
        Ok(IpAddr::V4(_)) | Err(_) => format!("{host}:{port}"),
    }
}

fn places(args: &InitArgs) -> Result<Vec<Place>, Error> {
    if !args.hosts.is_empty() && args.hosts.len() != usize::from(COUNT) {
        return Err(failed("name three hosts, one for each server and node, as in --hosts a,b,c"));
    }
    let &[server, http, links] = &args.ports[..] else { return Err(failed("three ports are needed")) };
    let place = |at: u16| {
        let (host, step) = match args.hosts.get(usize::from(at)) {
            Some(host) => (host.clone(), 0),
            None => ("127.0.0.1".to_owned(), at),
        };
        let port = |first: u16, step: u16| {
            first.checked_add(step).ok_or_else(|| failed("a port is above 65535: choose lower ones"))
        };
        Ok(Place {
            host,
            server: port(server, step)?,
            routes: port(server, 2000 + step)?,
            http: port(http, 10 * step)?,
            links: port(links, 10 * step)?,
        })
    };
    (0..COUNT).map(place).collect()
}

/// Writes everything and says how to go on.
pub(super) fn run(args: &InitArgs) -> Result<(), Error> {
    let folder = write_all(args)?;
    print::line(&next(&folder, args.hosts.is_empty()))
}

/// Writes everything for this machine.
pub(crate) fn write_cluster(folder: &Path, ports: [u16; 3]) -> Result<(), Error> {
    let args =
        InitArgs { folder: folder.to_owned(), hosts: Vec::new(), ports: ports.to_vec(), name: "twins".to_owned() };
    write_all(&args).map(drop)
}

fn write_all(args: &InitArgs) -> Result<PathBuf, Error> {
    let places = places(args)?;
    let folder = &args.folder;
    fs::create_dir(folder).map_err(|error| failed(format!("'{}' cannot be made: {error}", folder.display())))?;
    let folder = folder.canonicalize().map_err(failed)?;
    let authority = authority(&args.name).map_err(failed)?;
    let (login, routes) = (password(), password());
    let put = |name: &str, text: &str| {
        write(&folder.join(name), text).map_err(|error| failed(format!("'{name}' cannot be written: {error}")))
    };
    put("ca.pem", &authority.pem)?;
    put("ca.key", &authority.issuer.key().serialize_pem())?;
    put("token.key", &RootKey::generate().to_text())?;
    put("secrets.key", &NodeKey::draw().1)?;
    let servers: Vec<String> = places.iter().map(|place| format!("nats://{}", at(&place.host, place.server))).collect();
    for (number, place) in (1..).zip(&places) {
        let (pem, key) = certificate(&authority, &format!("server-{number}"), &place.host).map_err(failed)?;
        put(&format!("server-{number}.pem"), &pem)?;
        put(&format!("server-{number}.key"), &key)?;
        put(&format!("server-{number}.conf"), &server(args, &folder, number, place, &places, (&login, &routes)))?;
        let (pem, key) = certificate(&authority, &format!("node-{number}"), &place.host).map_err(failed)?;
        put(&format!("node-{number}.pem"), &pem)?;
        put(&format!("node-{number}.key"), &key)?;
        put(&format!("node-{number}.toml"), &node(args, &folder, number, place, &servers, &login))?;
    }
    Ok(folder)
}

fn server(
    args: &InitArgs,
    folder: &Path,
    number: u16,
    place: &Place,
    places: &[Place],
    (login, routes): (&str, &str),
) -> String {
    let folder = folder.display();
    let listens = if args.hosts.is_empty() { "127.0.0.1" } else { "0.0.0.0" };
    let others: Vec<String> =
        places.iter().map(|place| format!("nats://route:{routes}@{}", at(&place.host, place.routes))).collect();
    let tls = format!(
        "{{ cert_file: \"{folder}/server-{number}.pem\", key_file: \"{folder}/server-{number}.key\", ca_file: \
         \"{folder}/ca.pem\", verify: true }}"
    );
    format!(
        "# A nats-server of the cluster '{name}'; nats-server 2.15 or later: nats-server -c server-{number}.conf
server_name: {name}-{number}  # never given to another server
listen: {listens}:{port}
max_payload: 1MB
jetstream {{
  store_dir: \"{folder}/server-{number}\"
  sync_interval: always  # what is acknowledged survives power loss; the default is two minutes
}}
tls {tls}
accounts {{
  TWINS {{ jetstream: enabled, users: [ {{ user: twin, password: \"{login}\" }} ] }}
  SYS {{ users: [ {{ user: sys, password: \"{sys}\" }} ] }}
}}
system_account: SYS
cluster {{
  name: {name}
  listen: {listens}:{route_port}
  authorization {{ user: route, password: \"{routes}\" }}
  routes: [ {others} ]
  ping_interval: \"2s\"  # a route over a cut wire is given up after three; the default is two minutes
  ping_max: 2
  tls {tls}
}}
",
        name = args.name,
        port = place.server,
        sys = password(),
        route_port = place.routes,
        others = others.join(", "),
    )
}

fn node(args: &InitArgs, folder: &Path, number: u16, place: &Place, servers: &[String], login: &str) -> String {
    let folder = folder.display();
    let mut text = String::new();
    let is_local = args.hosts.is_empty();
    let links = if is_local { "127.0.0.1" } else { "0.0.0.0" };
    let quoted: Vec<String> = servers.iter().map(|server| format!("'{server}'")).collect();
    // Writing to a String does not fail.
    write!(
        text,
        "# A node of the cluster '{name}': twin serve --config node-{number}.toml
listen = '127.0.0.1:{http}'  # clients; for other machines put a TLS proxy in front
data_dir = '{folder}/node-{number}'
token_key_file = '{folder}/token.key'
secrets_key_file = '{folder}/secrets.key'

[cluster]
name = '{name}'
node = 'node-{number}'
servers = [{servers}]
user = 'twin'
password = '{login}'
ca_file = '{folder}/ca.pem'
cert_file = '{folder}/node-{number}.pem'
key_file = '{folder}/node-{number}.key'
listen = '{links}:{port}'
",
        name = args.name,
        http = place.http,
        servers = quoted.join(", "),
        port = place.links,
    )
    .ok();
    if !is_local {
        writeln!(text, "advertise = '{}'", at(&place.host, place.links)).ok();
    }
    text
}

fn next(folder: &Path, is_local: bool) -> String {
    let folder = folder.display();
    if is_local {
        return format!(
            "written to {folder}. Go on with

  for i in 1 2 3; do nats-server -c {folder}/server-$i.conf & done
  for i in 1 2 3; do twin serve --config {folder}/node-$i.toml & done
  export TWIN_KEY=$(cat {folder}/node-*/operator.key)  # one node makes the first key
  twin cluster

ca.key signs whatever the cluster trusts: keep it elsewhere."
        );
    }
    format!(
        "written to {folder}. Copy the folder to the same place on each machine, then start there, with its number for N,

  nats-server -c {folder}/server-N.conf
  twin serve --config {folder}/node-N.toml

ca.key signs whatever the cluster trusts: keep it elsewhere. Each machine needs ca.pem, token.key, secrets.key and the
files with its own number, and no others."
    )
}
