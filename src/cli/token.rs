//! `twin token`: what a key says, and keys that reach less far. Neither needs a node.

use std::{io::Read as _, path::PathBuf};

use clap::{Args, Subcommand};
use compact_str::CompactString;
use serde_json::{Map, Value, json};

use super::{Global, client::key_of, error::Error, print, time};
use crate::{
    model::{
        Timestamp, TokenRights,
        rights::{Attenuation, Narrowing},
        scope::{Operations, Pattern},
    },
    token::{self, Said},
    twin::keyring::Covers,
};

/// Most that is read where a token should be, in bytes.
const INPUT_BYTES_MAX: u64 = 64 * 1024;

/// What `twin token` takes.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  twin token show                                           what the key you speak with says
  twin token attenuate --expires 1h --operation get,list    the same for an hour, and only to read
  twin token attenuate --scope 'twin:shop/*' --scope 'node:metrics' key.txt > narrow.txt
  twin key new service shop/orders | twin token attenuate - --instance orders-1

Operations and scopes of the native API are listed in docs/operations.md.")]
pub struct TokenArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Print what a token says; whether anybody has signed it, only a node knows
    Show(Input),
    /// Print a token that reaches less far; the given one counts as before
    Attenuate(Attenuate),
}

#[derive(Clone, Debug, Args)]
struct Input {
    /// The file with the token, or - for standard input [default: the key you speak with]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
struct Attenuate {
    #[command(flatten)]
    input: Input,
    /// The only operations left, such as get,list
    #[arg(long = "operation", value_name = "NAME", value_delimiter = ',')]
    operations: Vec<CompactString>,
    /// The only scopes left, such as 'twin:shop/*'
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<Pattern>,
    /// From when on it counts no more: a time, or how long until then, such as 1h
    #[arg(long = "expires", value_name = "TIME", value_parser = time::deadline)]
    expires_at: Option<Timestamp>,
    /// The only instances of the service that it may speak for
    #[arg(long = "instance", value_name = "NAME")]
    instances: Vec<CompactString>,
    /// The only nodes that take it: their server.audience
    #[arg(long = "audience", value_name = "NAME")]
    audiences: Vec<CompactString>,
}

/// Runs one of them.
pub(super) fn run(global: &Global, args: TokenArgs) -> Result<(), Error> {
    match args.action {
        Action::Show(input) => {
            let said = token::show(&input.read(global)?).map_err(|error| Error::Usage(error.to_string()))?;
            if global.json { print::document(&shown(&said)) } else { print::line(&lines(&said)) }
        }
        Action::Attenuate(attenuate) => {
            let token = attenuate.input.read(global)?;
            let narrowed = token::attenuate(&token, &attenuate.attenuation());
            let narrowed = narrowed.map_err(|error| Error::Usage(error.to_string()))?;
            if global.json { print::document(&json!({ "key": narrowed })) } else { print::line(&narrowed) }
        }
    }
}

impl Input {
    fn read(&self, global: &Global) -> Result<String, Error> {
        let read = |from: &mut dyn std::io::Read| {
            let mut text = String::new();
            from.take(INPUT_BYTES_MAX).read_to_string(&mut text).map(|_| text)
        };
        let text = match &self.file {
            None => key_of(global.key.as_deref(), global.data_dir()).ok_or_else(|| {
                Error::Usage("there is no token: name a file, - for standard input, --key or TWIN_KEY".to_owned())
            })?,
            Some(file) if file.as_os_str() == "-" => {
                read(&mut std::io::stdin()).map_err(Error::io("standard input"))?
            }
            Some(file) => {
                let opened = std::fs::File::open(file).and_then(|mut file| read(&mut file));
                opened.map_err(Error::io(format!("'{}'", file.display())))?
            }
        };
        Ok(text.trim().to_owned())
    }
}

impl Attenuate {
    fn attenuation(self) -> Attenuation {
        let some = |names: Vec<CompactString>| if names.is_empty() { None } else { Some(names) };
        let operations = some(self.operations).map_or(Operations::All, Operations::Some);
        let scopes = if self.scopes.is_empty() { None } else { Some(self.scopes) };
        Attenuation {
            narrowing: Narrowing { operations, scopes },
            expires_at: self.expires_at,
            instances: some(self.instances),
            audiences: some(self.audiences),
        }
    }
}

/// What a token says, for programs.
fn shown(said: &Said) -> Value {
    let Said { id, covers, rights } = said;
    let TokenRights { issued_at, expires_at, narrowings, instances, audiences } = rights;
    let mut shown = Map::new();
    let mut say = |name: &str, value: Value| drop(shown.insert(name.to_owned(), value));
    say("id", id.as_str().into());
    say("kind", covers.name().into());
    match covers {
        Covers::Operator => {}
        Covers::Ingest { namespace } => say("namespace", namespace.to_string().into()),
        Covers::Service { service } => say("service", service.as_str().into()),
    }
    say("issued_at", issued_at.to_string().into());
    say("expires_at", expires_at.map(|at| at.to_string()).into());
    say("narrowings", narrowings.iter().map(narrowing).collect());
    say("instances", json!(instances));
    say("audiences", json!(audiences));
    Value::Object(shown)
}

fn narrowing(narrowing: &Narrowing) -> Value {
    let operations = match &narrowing.operations {
        Operations::All => None,
        Operations::Some(operations) => Some(operations),
    };
    json!({ "operations": operations, "scopes": narrowing.scopes })
}

/// The same for people; what is not narrowed is left out.
fn lines(said: &Said) -> String {
    let Said { id, covers, rights } = said;
    let TokenRights { issued_at, expires_at, narrowings, instances, audiences } = rights;
    let covered = match covers {
        Covers::Operator => "everything".to_owned(),
        Covers::Ingest { namespace } => format!("telemetry for namespace {namespace}"),
        Covers::Service { service } => service.to_string(),
    };
    let line = |name: &str, value: &str| format!("{name:12}{}", print::plain(value));
    let mut lines = vec![
        line("id", id),
        line("kind", covers.name()),
        line("covers", &covered),
        line("issued at", &issued_at.to_string()),
    ];
    lines.extend(expires_at.map(|at| line("expires at", &at.to_string())));
    lines.extend(narrowings.iter().map(|Narrowing { operations, scopes }| {
        let scopes = scopes.as_ref().map_or("*".into(), |scopes| {
            let scopes: Vec<&str> = scopes.iter().map(Pattern::as_str).collect();
            scopes.join(", ")
        });
        line("only", &format!("{operations} on {scopes}"))
    }));
    lines.extend(instances.as_ref().map(|names| line("instances", &names.join(", "))));
    lines.extend(audiences.as_ref().map(|names| line("audiences", &names.join(", "))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_token_says_is_shown_without_what_it_leaves_open() {
        let mut rights = TokenRights { issued_at: Timestamp::from_unix_ms(1000), ..TokenRights::default() };
        let said = |rights: &TokenRights| Said { id: "0f".into(), covers: Covers::Operator, rights: rights.clone() };
        let whole =
            "id          0f\nkind        operator\ncovers      everything\nissued at   1970-01-01T00:00:01.000Z";
        assert_eq!(lines(&said(&rights)), whole);
        let scopes = Some(vec![Pattern::parse("twin:shop/*").unwrap(), Pattern::parse("node:metrics").unwrap()]);
        let narrowing = Narrowing { operations: Operations::All, scopes };
        let instances = Some(vec!["a".into(), "b".into()]);
        rights.narrow(Attenuation { narrowing, instances, ..Attenuation::default() });
        let narrowed = "\nonly        * on twin:shop/*, node:metrics\ninstances   a, b";
        assert_eq!(lines(&said(&rights)), format!("{whole}{narrowed}"));
    }
}
