//! `twin call`: any request of any capability, by its name.

use clap::Args;
use reqwest::Method;

use super::{
    client::{Client, segment, twin_path},
    desired::parse,
    error::Error,
    print::{self, Table},
    value,
};

/// What `twin call` takes.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The fields of a request are a JSON object, also on standard input (-); a request without fields takes none. Bytes, such as
values of the state, are a text, or a list of numbers if they are no text. The answer is JSON. Whatever it is that is asked,
the same rights are asked for as elsewhere: 'twin grant explain' says which rule decides. 'twin state', 'twin config' and
'twin grant' are made for people; this reaches what has no command of its own.

Examples:
  twin call --list                                     what there is
  twin call shop/orders state stores
  twin call shop/orders state get '{\"store\": \"statestore\", \"keys\": [\"order-1\", \"order-2\"]}'
  twin call shop/orders components add - < component.json")]
pub struct CallArgs {
    /// List every capability's requests
    #[arg(long, conflicts_with_all = ["service", "capability", "request", "body"])]
    list: bool,
    /// The service: namespace/name
    #[arg(value_name = "SERVICE", required_unless_present = "list")]
    service: Option<String>,
    /// The capability
    #[arg(value_name = "CAPABILITY", required_unless_present = "list")]
    capability: Option<String>,
    /// The request
    #[arg(value_name = "REQUEST", required_unless_present = "list")]
    request: Option<String>,
    /// Its fields: a JSON object, or - for standard input
    #[arg(value_name = "JSON|-")]
    body: Option<String>,
}

/// Runs it.
pub(super) async fn run(client: &Client, args: CallArgs, json: bool) -> Result<(), Error> {
    let CallArgs { service: Some(service), capability: Some(capability), request: Some(request), body, .. } = args
    else {
        return list(client, json).await;
    };
    let body = match body.as_deref() {
        Some("-") => Some(parse(&value::text()?)?),
        Some(text) => Some(parse(text)?),
        None => None,
    };
    let path = format!("{}/capabilities/{}/{}", twin_path(&service)?, segment(&capability), segment(&request));
    let answer = client.write(Method::POST, &path, body.as_ref(), None).await?;
    if !json && answer.is_null() { print::line("done") } else { print::document(&answer) }
}

async fn list(client: &Client, json: bool) -> Result<(), Error> {
    let listed = client.get("/api/v1/capabilities").await?;
    if json {
        return print::document(&listed);
    }
    let mut table = Table::new(&["CAPABILITY", "REQUEST", "OPERATION", "CREATES"]);
    for request in listed.as_array().into_iter().flatten() {
        let member = |name| print::member(request, name);
        table.row([
            member("capability"),
            member("request"),
            member("operation"),
            print::yes(request["creates"] == true).to_owned(),
        ]);
    }
    table.print()
}
