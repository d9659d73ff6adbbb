//! From the first line to the exit code: node, key, door, child, and the same backwards.

use std::{process::ExitCode, sync::Arc, time::Duration};

use serde_json::json;
use tokio::{sync::watch, task::JoinSet};

use super::{
    RunArgs,
    channel::{self, Channel},
    child::Child,
    commands::Commands,
    environment, files,
    flags::Plan,
    health::{self, Health},
    instance::Instance,
    node::{Node, OwnNode, Place, Token},
    proxy::Proxy,
    register::register,
    resources::Resources,
    signal::Asked,
};
use crate::cli::{Global, client::twin_path, error::Error, finish, print};

/// How long a command that is being carried out is waited for once the service has ended.
const LAST_COMMAND: Duration = Duration::from_secs(2);
/// How long a node may take to hear that it has, and that its key has.
const FAREWELL: Duration = Duration::from_secs(5);

/// Runs a service as a child of this process; its exit code is ours. `start` starts a node in this process.
pub async fn run<F>(global: &Global, args: RunArgs, start: impl FnOnce(Place) -> F) -> ExitCode
where
    F: Future<Output = Result<OwnNode, String>>,
{
    match session(global, &args, start).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => finish(Err(error)),
    }
}

async fn session<F>(global: &Global, args: &RunArgs, start: impl FnOnce(Place) -> F) -> Result<u8, Error>
where
    F: Future<Output = Result<OwnNode, String>>,
{
    let plan = args.plan()?;
    args.foreign.notes().for_each(|note| print::aside(&note));
    let resources = files::read(args, &plan.service)?;
    let mut asked = Asked::new().map_err(Error::io("signals"))?;
    let node = tokio::select! {
        node = Node::find(args, global, start) => node?,
        signal = asked.next() => return Ok(signal.exit_code()),
    };
    let ended = with_node(&node, global, args, &plan, resources.as_ref(), &mut asked).await;
    tokio::select! {
        () = node.end() => {}
        _ = asked.next() => print::aside("the node is ended at once, as asked; what was acknowledged is kept"),
    }
    ended
}

/// The key ends with the service, however that ends.
async fn with_node(
    node: &Node,
    global: &Global,
    args: &RunArgs,
    plan: &Plan,
    resources: Option<&Resources>,
    asked: &mut Asked,
) -> Result<u8, Error> {
    let operator = node.client(global.key.as_deref())?;
    let token = if let Some(token) = &args.token {
        Token::given(token)
    } else {
        tokio::select! {
            token = Token::mint(&operator, &plan.service) => token?,
            signal = asked.next() => {
                print::aside("ended before it began; a key that was made meanwhile is in 'twin key ls'");
                return Ok(signal.exit_code());
            }
        }
    };
    // A key that was given in the place of an operator's is the service's own.
    let registrar =
        if operator.has_key() || args.token.is_none() { &operator } else { &node.client(Some(&token.text))? };
    let registered = async {
        match resources {
            Some(resources) => register(registrar, &plan.service, resources).await,
            None => Ok(()),
        }
    };
    let registered = tokio::select! {
        registered = registered => registered.map(|()| None),
        signal = asked.next() => Ok(Some(signal.exit_code())),
    };
    let ended = match registered {
        Ok(None) => with_token(node, global, &token.text, plan, asked).await,
        Ok(Some(code)) => Ok(code),
        Err(error) => Err(error),
    };
    in_time(token.end(&operator)).await;
    ended
}

async fn with_token(node: &Node, global: &Global, token: &str, plan: &Plan, asked: &mut Asked) -> Result<u8, Error> {
    let client = node.client(Some(token))?;
    let instance = Instance::new(client.clone(), plan)?;
    let proxy = Proxy::open(node.url(), &plan.service, token, plan.ports).await?;
    let variables = environment::variables(plan, proxy.ports(), token);
    let child = Child::start(&plan.command, &variables, global.json)?;
    let commands = plan.handlers.as_ref().map(|handlers| {
        let path = format!("{}/commands", twin_path(plan.service.as_str())?);
        let (handlers, app, process) = (handlers.clone(), plan.app.clone(), child.id());
        Ok::<_, Error>(Arc::new(Commands::new(client, instance.clone(), path, handlers, app, process)))
    });
    let commands = commands.transpose()?;
    let up = Up { node: node.url(), plan, ports: proxy.ports(), process: child.id(), json: global.json };
    let channel = plan
        .app
        .clone()
        .map(|app| Channel::new(node.url(), &instance.channel_path(), token, app, plan.app_token.as_deref()));
    let channel = channel.transpose().map_err(Error::io("the way in to the service"))?;
    let ended = supervise(child, &instance, commands, channel, &up, asked).await?;
    match ended {
        // Asked to, or done.
        Ended { code: 0, .. } | Ended { was_asked: true, .. } => in_time(instance.leave()).await,
        Ended { code, was_asked: false } => in_time(instance.fall(code)).await,
    }
    Ok(ended.code)
}

/// A node that does not answer holds up nobody's end for long.
async fn in_time(farewell: impl Future<Output = ()>) {
    if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
        print::aside("its node does not answer; what is left there: 'twin key ls', 'twin get'");
    }
}

struct Ended {
    code: u8,
    was_asked: bool,
}

/// Until the child has ended, by itself or because we were asked to end.
async fn supervise(
    mut child: Child,
    instance: &Instance,
    commands: Option<Arc<Commands>>,
    channel: Option<Channel>,
    up: &Up<'_>,
    asked: &mut Asked,
) -> Result<Ended, Error> {
    let (tell, mut health) = watch::channel(Health::Starting);
    let mut beside = JoinSet::new();
    beside.spawn(health::watch(up.plan.app.clone(), up.plan.check.clone(), tell));
    {
        let (instance, health) = (instance.clone(), health.clone());
        beside.spawn(async move { match instance.beat(health).await {} });
    }
    let (leave, leaving) = watch::channel(false);
    let mut way_in = JoinSet::new();
    if let Some(channel) = channel {
        let health = health.clone();
        way_in.spawn(async move { channel.keep(health, leaving).await });
    }
    if let Some(commands) = &commands {
        let (commands, mut health) = (Arc::clone(commands), health.clone());
        beside.spawn(async move {
            // The twin knows the instance by then.
            if health.wait_for(|health| *health != Health::Starting).await.is_ok() {
                match commands.collect().await {}
            }
        });
    }
    let failed = || Error::io(format!("the end of process {}", up.process));
    let mut is_said = false;
    let ended = loop {
        tokio::select! {
            code = child.ended() => break Ended { code: code.map_err(failed())?, was_asked: false },
            signal = asked.next() => {
                print::aside("ending; a second signal ends it at once");
                // Its node sends it nothing new while it ends.
                leave.send_replace(true);
                let is_urgent = tokio::select! {
                    _ = way_in.join_next() => false,
                    () = tokio::time::sleep(channel::LEAVE_MAX) => false,
                    _ = asked.next() => true,
                };
                let grace = if is_urgent { Duration::ZERO } else { up.plan.grace };
                let code = child.end(signal, grace, asked.next()).await.map_err(failed())?;
                break Ended { code, was_asked: true };
            }
            Ok(()) = health.changed() => {
                let now = health.borrow_and_update().clone();
                up.say(&now, &mut is_said)?;
            }
        }
    };
    child.last_words().await;
    if let Some(commands) = &commands {
        // It may be what has ended the service; then it is told first.
        drop(tokio::time::timeout(LAST_COMMAND, commands.idle()).await);
    }
    let silent = tokio::time::timeout(FAREWELL, instance.silent()).await;
    beside.shutdown().await;
    drop(silent);
    if up.json {
        print::line(&json!({ "event": "ended", "code": ended.code, "asked": ended.was_asked }).to_string())?;
    } else {
        print::aside(&format!("{} has ended with exit code {}", up.plan.service, ended.code));
    }
    Ok(ended)
}

/// What is told of a service that is up.
struct Up<'a> {
    node: &'a str,
    plan: &'a Plan,
    ports: [u16; 2],
    process: u32,
    json: bool,
}

impl Up<'_> {
    fn say(&self, health: &Health, is_said: &mut bool) -> Result<(), Error> {
        match health {
            Health::Starting => Ok(()),
            Health::Healthy if !*is_said => {
                *is_said = true;
                self.is_up()
            }
            Health::Healthy => self.event("healthy", "it is well again"),
            Health::Unhealthy(why) => self.event("unhealthy", why),
        }
    }

    fn event(&self, event: &str, text: &str) -> Result<(), Error> {
        if self.json {
            return print::line(&json!({ "event": event, "detail": text }).to_string());
        }
        print::aside(&format!("{} is {event}: {}", self.plan.service, print::plain(text)));
        Ok(())
    }

    fn is_up(&self) -> Result<(), Error> {
        let Self { node, plan, ports: [http, grpc], process, json } = self;
        if *json {
            let up = json!({
                "event": "up",
                "service": plan.service.as_str(),
                "instance": plan.instance,
                "process": process,
                "node": node,
                "http_port": http,
                "grpc_port": grpc,
            });
            return print::line(&up.to_string());
        }
        print::aside(&format!(
            "{} is up: process {process}, instance {}, its door on ports {http} and {grpc}, its twin at {node}",
            plan.service,
            print::plain(&plan.instance),
        ));
        print::aside(&format!("in another terminal: twin get {}", plan.service));
        Ok(())
    }
}
