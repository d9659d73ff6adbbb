//! What `twin run` takes, and what of it is understood.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::{commands::Handler, foreign::Foreign, health::Check};
use crate::{cli::error::Error, model::ServiceId};

/// What `twin run` takes.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The command runs with a door of its own to its twin: two ports of this machine for HTTP and gRPC.
Its environment has what SDKs need: DAPR_HTTP_PORT, DAPR_GRPC_PORT, DAPR_API_TOKEN and their kin,
OTEL_EXPORTER_OTLP_ENDPOINT with its headers, service name and resource attributes. A call without
a token counts as the service's if a process of the same user on this machine sends it (Linux).

Its output has '== APP == ' before each line. Ctrl-C and SIGTERM are passed on, its exit code is
ours, and while it is up and healthy it is an instance of its twin. If no node answers, one is
started here and ends with the command; for more than one service, run 'twin serve' first.

Examples:
  twin run --app-id orders -- python3 orders.py
  twin run --app-id shop/orders --app-port 8080 --on-command restart=signal:HUP -- node orders.js")]
pub struct RunArgs {
    /// The service: name, or namespace/name
    #[arg(long, short = 'a', value_name = "ID")]
    app_id: String,
    /// The namespace of a service that is given by its name [default: default]
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Which instance of the service this is [default: a fresh one]
    #[arg(long, value_name = "ID")]
    instance: Option<String>,
    /// The port on which the service listens
    #[arg(long, short = 'p', value_name = "PORT")]
    app_port: Option<u16>,
    /// What the service speaks there
    #[arg(long, short = 'P', value_name = "PROTOCOL", default_value = "http")]
    app_protocol: Protocol,
    /// Where the service listens
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    app_channel_address: String,
    /// The HTTP port of its door; 0 for any free one
    #[arg(long, short = 'H', value_name = "PORT", default_value_t = 0)]
    dapr_http_port: u16,
    /// The gRPC port of its door; 0 for any free one
    #[arg(long, short = 'G', value_name = "PORT", default_value_t = 0)]
    dapr_grpc_port: u16,
    /// Ask the service whether it is well
    #[arg(long)]
    enable_app_health_check: bool,
    /// The path to ask, over HTTP
    #[arg(long, value_name = "PATH", default_value = "/healthz")]
    app_health_check_path: String,
    /// How often, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    app_health_probe_interval: u64,
    /// How long an answer may take, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    app_health_probe_timeout: u64,
    /// After how many failures in a row it is not well
    #[arg(long, value_name = "NUMBER", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    app_health_threshold: u32,
    /// A folder (or file) with Dapr's resources; may be given more than once
    #[arg(long, short = 'd', visible_alias = "components-path", value_name = "PATH")]
    pub(super) resources_path: Vec<PathBuf>,
    /// A file with Dapr's Configuration
    #[arg(long, short = 'c', value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Put the built-in stores in the place of those that resources name, such as Redis (development)
    #[arg(long)]
    pub(super) map_components: bool,
    /// What to do with a command of the twin: NAME=signal:HUP, or NAME=http:/path on the service's port
    #[arg(long = "on-command", value_name = "NAME=ACTION")]
    on_command: Vec<Handler>,
    /// Leave commands to the service, which collects them itself
    #[arg(long, conflicts_with = "on_command")]
    no_commands: bool,
    /// The key the service speaks with [default: a fresh one, revoked at the end]
    #[arg(long, value_name = "KEY", env = "TWIN_TOKEN", hide_env_values = true)]
    pub(super) token: Option<String>,
    /// Start a node here, on this port; 0 for any free one [default: only if none answers on 7070]
    #[arg(long, value_name = "PORT")]
    pub(super) node_port: Option<u16>,
    /// How long the service may take to end, in seconds; then it is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    stop_grace: u64,
    /// What a node that is started here logs
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    pub(super) log_level: Level,
    /// By which the service may tell calls that come through its twin
    #[arg(long, hide = true, env = "APP_API_TOKEN", hide_env_values = true)]
    app_api_token: Option<String>,
    /// Further resource attributes of its telemetry
    #[arg(long, hide = true, env = "OTEL_RESOURCE_ATTRIBUTES")]
    otel_attributes: Option<String>,
    /// How it sends its telemetry
    #[arg(long, hide = true, env = "OTEL_EXPORTER_OTLP_PROTOCOL", default_value = "http/protobuf")]
    otel_protocol: String,
    #[command(flatten)]
    pub(super) foreign: Foreign,
    /// The service's program and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    command: Vec<OsString>,
}

/// What the service speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Protocol {
    Http,
    Grpc,
}

impl Protocol {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }
}

/// Dapr's levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Level {
    Debug,
    Info,
    Warn,
    Error,
    Fatal,
}

impl Level {
    /// The same as a node says it.
    pub(super) fn as_filter(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error | Self::Fatal => "error",
        }
    }
}

/// Where the service listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct App {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
}

impl App {
    /// Where it is, in a URL.
    pub(super) fn url(&self, path: &str) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("http://[{host}]:{port}{path}") } else { format!("http://{host}:{port}{path}") }
    }
}

/// What is to be run, understood.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) service: ServiceId,
    pub(super) instance: String,
    /// `service.version`, if the environment states one.
    pub(super) version: Option<String>,
    pub(super) app: Option<App>,
    pub(super) check: Option<Check>,
    /// What calls to the service carry, so that it can tell them from others.
    pub(super) app_token: Option<String>,
    /// HTTP, then gRPC.
    pub(super) ports: [u16; 2],
    /// `None` if the service collects commands itself.
    pub(super) handlers: Option<Vec<Handler>>,
    pub(super) grace: Duration,
    /// As `OTEL_RESOURCE_ATTRIBUTES` has them.
    pub(super) attributes: String,
    /// As `OTEL_EXPORTER_OTLP_PROTOCOL` has it; the door takes each.
    pub(super) telemetry: String,
    pub(super) command: Vec<OsString>,
}

impl RunArgs {
    /// Understands what was given, or says what is wrong with it.
    pub(super) fn plan(&self) -> Result<Plan, Error> {
        if let Some(refused) = self.foreign.refused() {
            return Err(Error::Usage(refused));
        }
        let service = self.service()?;
        let app =
            self.app_port.map(|port| App { host: self.app_channel_address.clone(), port, protocol: self.app_protocol });
        let check = self.enable_app_health_check.then(|| Check {
            path: format!("/{}", self.app_health_check_path.trim_start_matches('/')),
            every: Duration::from_secs(self.app_health_probe_interval),
            timeout: Duration::from_millis(self.app_health_probe_timeout),
            threshold: self.app_health_threshold,
        });
        let without_port =
            |what: &str| Error::Usage(format!("{what} needs to know where the service listens: --app-port"));
        if check.is_some() && app.is_none() {
            return Err(without_port("--enable-app-health-check"));
        }
        if app.is_none() && self.on_command.iter().any(Handler::needs_port) {
            return Err(without_port("--on-command NAME=http:/path"));
        }
        let attributes = self.otel_attributes.clone().unwrap_or_default();
        let stated = |name: &str| {
            let pairs = attributes.split(',').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned()).next()
        };
        let fresh = || {
            let name: String = service.name().chars().take(40).collect();
            format!("{name}-{}", &uuid::Uuid::new_v4().simple().to_string()[..12])
        };
        Ok(Plan {
            instance: self.instance.clone().or_else(|| stated("service.instance.id")).unwrap_or_else(fresh),
            version: stated("service.version"),
            service,
            app,
            check,
            app_token: self.app_api_token.clone().filter(|token| !token.is_empty()),
            ports: [self.dapr_http_port, self.dapr_grpc_port],
            handlers: (!self.no_commands).then(|| self.on_command.clone()),
            grace: Duration::from_secs(self.stop_grace),
            attributes,
            telemetry: self.otel_protocol.clone(),
            command: self.command.clone(),
        })
    }

    fn service(&self) -> Result<ServiceId, Error> {
        let id = match &self.namespace {
            Some(_) if self.app_id.contains('/') => {
                return Err(Error::Usage("--app-id names a namespace already; leave --namespace out".to_owned()));
            }
            Some(namespace) => ServiceId::new(namespace, &self.app_id),
            None => ServiceId::parse(&self.app_id),
        };
        id.map_err(|error| Error::Usage(format!("--app-id '{}': {error}", self.app_id)))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Run {
        #[command(flatten)]
        args: RunArgs,
    }

    fn plan(args: &[&str]) -> Result<Plan, String> {
        let run = Run::try_parse_from([&["run"], args].concat()).map_err(|error| error.to_string())?;
        run.args.plan().map_err(|error| error.to_string())
    }

    #[test]
    fn a_line_written_for_dapr_is_understood() {
        let line = "--app-id orders --app-port 8080 --app-protocol grpc --dapr-http-port 3500 -G 50001 \
                    --resources-path ./components --log-level debug --app-max-concurrency -1 --metrics-port 9090 \
                    --enable-api-logging -- python3 -m orders --port 8080";
        let words: Vec<&str> = line.split_whitespace().collect();
        let plan = plan(&words).unwrap();
        assert_eq!(plan.service.as_str(), "default/orders");
        assert_eq!(plan.ports, [3500, 50001]);
        assert_eq!(plan.app, Some(App { host: "127.0.0.1".into(), port: 8080, protocol: Protocol::Grpc }));
        assert_eq!(plan.command, ["python3", "-m", "orders", "--port", "8080"]);
        assert!(plan.instance.starts_with("orders-"), "{}", plan.instance);
    }

    #[test]
    fn flags_that_change_nothing_are_noted_and_what_is_not_there_is_refused() {
        let run = Run::try_parse_from(["run", "-a", "a", "-M", "1", "--enable-profiling", "true"]).unwrap();
        assert_eq!(run.args.foreign.notes().count(), 2);
        for flag in [&["--kubernetes"][..], &["-u", "/tmp"], &["--dapr-listen-addresses", "0.0.0.0"]] {
            let error = plan(&[&["-a", "a"], flag, &["true"]].concat()).unwrap_err();
            assert!(error.contains("is not supported; "), "{error}");
        }
    }

    #[test]
    fn a_service_is_named_with_or_without_its_namespace() {
        let service = |args: &[&str]| plan(&[args, &["true"]].concat()).map(|plan| plan.service.as_str().to_owned());
        assert_eq!(service(&["-a", "shop/orders"]).unwrap(), "shop/orders");
        assert_eq!(service(&["-a", "orders", "--namespace", "shop"]).unwrap(), "shop/orders");
        assert!(service(&["-a", "shop/orders", "--namespace", "farm"]).is_err());
        assert!(service(&["-a", ""]).is_err());
    }

    #[test]
    fn what_needs_the_services_port_says_so() {
        let error = plan(&["-a", "a", "--on-command", "reload=http:/reload", "true"]).unwrap_err();
        assert!(error.contains("--app-port"), "{error}");
        assert!(plan(&["-a", "a", "--enable-app-health-check", "true"]).unwrap_err().contains("--app-port"));
        assert!(plan(&["-a", "a", "--on-command", "restart=signal:HUP", "true"]).is_ok());
    }

    #[test]
    fn instance_and_version_may_be_stated_as_telemetry_states_them() {
        let attributes = "service.version=2.1, service.instance.id=pod-7";
        let plan = plan(&["-a", "a", "--otel-attributes", attributes, "true"]).unwrap();
        assert_eq!((plan.instance.as_str(), plan.version.as_deref()), ("pod-7", Some("2.1")));
    }
}
