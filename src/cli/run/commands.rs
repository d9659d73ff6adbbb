//! The twin's commands for this instance: collected, carried out as the command line says, answered.

use std::{convert::Infallible, str::FromStr, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use super::{
    flags::App,
    instance::{Instance, cut},
    signal::Signal,
};
use crate::{
    cli::{Client, print},
    twin::service::{limits::RESULT_BYTES_MAX, view::DeliveryView},
};

/// Pause before a broken stream is taken up again, and its bound.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long a service may take to answer a callback.
const CALLBACK_TIMEOUT: Duration = Duration::from_secs(60);

/// `NAME=ACTION`: what to do with a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Handler {
    command: String,
    action: Action,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    /// Sent to the process that was started.
    Signal(Signal),
    /// A path on the service's port; it gets the parameters.
    Http(String),
}

impl FromStr for Handler {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write NAME=signal:HUP or NAME=http:/path".to_owned();
        let (command, action) = text.split_once('=').ok_or_else(wrong)?;
        let (kind, what) = action.split_once(':').ok_or_else(wrong)?;
        let action = match kind {
            "signal" => Action::Signal(Signal::parse(what)?),
            "http" if what.starts_with('/') => Action::Http(what.to_owned()),
            _ => return Err(wrong()),
        };
        if command.is_empty() {
            return Err(wrong());
        }
        Ok(Self { command: command.to_owned(), action })
    }
}

impl Handler {
    /// Whether it calls the service.
    pub(super) fn needs_port(&self) -> bool {
        match self.action {
            Action::Http(_) => true,
            Action::Signal(_) => false,
        }
    }
}

/// Carries out commands, one after the other.
pub(super) struct Commands {
    client: Client,
    instance: Instance,
    path: String,
    handlers: Vec<Handler>,
    app: Option<App>,
    process: u32,
    /// Held while one is carried out.
    at_work: Mutex<()>,
}

impl Commands {
    /// Of the twin whose commands lie at `path`, for `process`.
    pub(super) fn new(
        client: Client,
        instance: Instance,
        path: String,
        handlers: Vec<Handler>,
        app: Option<App>,
        process: u32,
    ) -> Self {
        Self { client, instance, path, handlers, app, process, at_work: Mutex::new(()) }
    }

    /// Waits until none is being carried out; none is begun while the guard is held.
    pub(super) async fn idle(&self) -> MutexGuard<'_, ()> {
        self.at_work.lock().await
    }

    /// Collects for as long as it takes. What was not acknowledged is handed over again, so nothing is lost at a break.
    pub(super) async fn collect(&self) -> Infallible {
        let mut pause = PAUSE;
        loop {
            if let Ok(mut stream) = self.client.events(&self.instance.commands_path(), None).await {
                pause = PAUSE;
                while let Ok(Some(event)) = stream.next().await {
                    match serde_json::from_str(&event.data) {
                        Ok(command) if event.kind == "command" => self.one(command).await,
                        Ok(_) | Err(_) => {}
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn one(&self, command: DeliveryView) {
        let _at_work = self.at_work.lock().await;
        print::aside(&format!("command {} {} arrives", command.id, print::plain(&command.name)));
        let path = format!("{}/{}", self.path, command.id);
        let begin = json!({ "instance": self.instance.name() });
        // One that cannot be begun was taken back, has expired, or comes again.
        if let Err(error) = self.client.write(Method::POST, &format!("{path}/ack"), Some(&begin), None).await {
            print::aside(&format!("command {} is left alone: {error}", command.id));
            return;
        }
        let mut end = json!({ "instance": self.instance.name() });
        match self.act(&command).await {
            Ok(result) => {
                print::aside(&format!("command {} is done", command.id));
                end["result"] = result;
            }
            Err(why) => {
                let why = cut(&why, RESULT_BYTES_MAX);
                print::aside(&format!("command {} has failed: {}", command.id, print::plain(&why)));
                end["error"] = why.into();
            }
        }
        if let Err(error) = self.client.write(Method::POST, &format!("{path}/result"), Some(&end), None).await {
            print::aside(&format!("what came of command {} is not told: {error}", command.id));
        }
    }

    async fn act(&self, command: &DeliveryView) -> Result<Value, String> {
        let handler = self.handlers.iter().find(|handler| handler.command == command.name);
        match (handler.map(|handler| &handler.action), &self.app) {
            (Some(Action::Signal(signal)), _) => {
                signal.send(self.process).map(|()| Value::Null).map_err(|error| format!("no signal was sent: {error}"))
            }
            (Some(Action::Http(path)), Some(app)) => call(app, path, command).await,
            (Some(Action::Http(_)), None) => Err("twin run knows no port of the service: --app-port".to_owned()),
            (None, _) => {
                Err("not mapped: start the service with 'twin run --on-command NAME=signal:HUP' or NAME=http:/path"
                    .to_owned())
            }
        }
    }
}

/// Hands the parameters to the service; its answer is the result, if that is small.
async fn call(app: &App, path: &str, command: &DeliveryView) -> Result<Value, String> {
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    let client = client.timeout(CALLBACK_TIMEOUT).build().map_err(|error| error.to_string())?;
    let request = client.post(app.url(path));
    let request = request.header("content-type", "application/json").body(command.parameters.text().to_owned());
    let failed = |error: reqwest::Error| format!("the service did not answer: {}", root(&error));
    let mut response = request.send().await.map_err(failed)?;
    let status = response.status();
    let mut body = Vec::new();
    // As much as can be told of it; the rest is not waited for.
    while let Some(piece) = response.chunk().await.map_err(failed)? {
        body.extend_from_slice(&piece);
        if body.len() > RESULT_BYTES_MAX {
            break;
        }
    }
    if !status.is_success() {
        return Err(format!("{status}: {}", String::from_utf8_lossy(&body).trim()));
    }
    Ok(result(&body))
}

/// A body as a result: a document, or a text; nothing if it is empty or too large to be kept.
fn result(body: &[u8]) -> Value {
    let text = String::from_utf8_lossy(body);
    let value = serde_json::from_slice(body).unwrap_or_else(|_| Value::from(text.trim()));
    if body.is_empty() || value.to_string().len() > RESULT_BYTES_MAX { Value::Null } else { value }
}

fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_names_a_command_and_what_to_do() {
        let handler = |text: &str| text.parse::<Handler>();
        assert_eq!(handler("restart=signal:HUP").unwrap().action, Action::Signal(Signal::Hup));
        assert_eq!(handler("reload=http:/admin/reload?x=1").unwrap().action, Action::Http("/admin/reload?x=1".into()));
        for wrong in ["restart", "=signal:HUP", "restart=HUP", "restart=signal:NONE", "reload=http:admin", "a=exec:/x"]
        {
            assert!(handler(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_small_answer_is_the_result_and_a_large_one_is_none() {
        assert_eq!(result(br#"{"workers": 4}"#), json!({ "workers": 4 }));
        assert_eq!(result(b"done\n"), json!("done"));
        assert_eq!(result(b""), Value::Null);
        assert_eq!(result(&[b'x'; 200]), Value::Null);
    }
}
