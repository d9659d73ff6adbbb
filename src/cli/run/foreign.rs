//! Flags of `dapr run` that mean nothing here: taken with a note, or refused with what to do instead.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, parser::ValueSource};

/// What becomes of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It changes nothing, for this reason.
    Noted(&'static str),
    /// It asks for what is not there; this is the way out.
    Refused(&'static str),
}

use Fate::{Noted, Refused};

/// One flag.
struct Flag {
    name: &'static str,
    short: Option<char>,
    takes_value: bool,
    fate: Fate,
}

const fn value(name: &'static str, short: Option<char>, fate: Fate) -> Flag {
    Flag { name, short, takes_value: true, fate }
}

const fn switch(name: &'static str, short: Option<char>, fate: Fate) -> Flag {
    Flag { name, short, takes_value: false, fate }
}

const NO_SIDECAR: &str = "there is no process beside the service that it could be for";
const ON_THE_NODE: &str = "a node has its own bounds; 'twin serve --print-config' shows them";

const FLAGS: [Flag; 19] = [
    value("app-max-concurrency", None, Noted("nothing is delivered to the service by itself yet")),
    value("dapr-internal-grpc-port", Some('I'), Noted(NO_SIDECAR)),
    value("metrics-port", Some('M'), Noted("metrics are at the node, under /metrics")),
    value("profile-port", None, Noted(NO_SIDECAR)),
    value("placement-host-address", None, Noted(NO_SIDECAR)),
    value("scheduler-host-address", None, Noted(NO_SIDECAR)),
    value("runtime-path", None, Noted(NO_SIDECAR)),
    value("dapr-http-max-request-size", None, Noted(ON_THE_NODE)),
    value("dapr-http-read-buffer-size", None, Noted(ON_THE_NODE)),
    value("max-body-size", Some('B'), Noted(ON_THE_NODE)),
    value("read-buffer-size", Some('R'), Noted(ON_THE_NODE)),
    switch("enable-profiling", None, Noted(NO_SIDECAR)),
    switch("enable-api-logging", None, Noted("'twin journal' and 'twin watch' show what happens")),
    switch("log-as-json", None, Noted("--json prints what 'twin run' itself says as JSON")),
    value("run-file", Some('f'), Refused("start each service of the file with its own 'twin run'")),
    value("unix-domain-socket", Some('u'), Refused("leave it out: the service reaches its twin over loopback ports")),
    value("dapr-listen-addresses", None, Refused("leave it out: the ports are this machine's alone")),
    switch("app-ssl", None, Refused("leave it out, and let the service listen in the clear on 127.0.0.1")),
    switch("kubernetes", Some('k'), Refused("leave it out: 'twin run' starts a process on this machine")),
];

/// Which of them were given.
#[derive(Clone, Debug, Default)]
pub(super) struct Foreign(Vec<(&'static str, Fate)>);

impl Foreign {
    /// One line for each that changes nothing.
    pub(super) fn notes(&self) -> impl Iterator<Item = String> {
        self.0.iter().filter_map(|(name, fate)| match fate {
            Noted(why) => Some(format!("--{name} changes nothing: {why}")),
            Refused(_) => None,
        })
    }

    /// The first that is refused, and the way out.
    pub(super) fn refused(&self) -> Option<String> {
        self.0.iter().find_map(|(name, fate)| match fate {
            Refused(way_out) => Some(format!("--{name} is not supported; {way_out}")),
            Noted(_) => None,
        })
    }
}

impl Args for Foreign {
    fn augment_args(command: Command) -> Command {
        FLAGS.iter().fold(command, |command, flag| {
            let action = if flag.takes_value { ArgAction::Append } else { ArgAction::SetTrue };
            let arg = Arg::new(flag.name).long(flag.name).hide(true).action(action);
            let arg = if flag.takes_value { arg.allow_negative_numbers(true) } else { arg };
            command.arg(if let Some(short) = flag.short { arg.short(short) } else { arg })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Foreign {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = FLAGS.iter().filter(|flag| matches.value_source(flag.name) == Some(ValueSource::CommandLine));
        Ok(Self(given.map(|flag| (flag.name, flag.fate)).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
