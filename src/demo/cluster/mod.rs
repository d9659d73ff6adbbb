//! `twin demo --cluster`: three servers, three nodes and clients, and every now and then a node that dies.
//!
//! ```text
//! 24 clients, each counting on its twin ─▶ any node ─▶ the node that has the twin ─▶ three nats-servers
//!                                            └ killed, its twins go to the others, and back when it is started again
//! ```
//!
//! Start at [`run`].

mod clients;
mod machines;

use std::{
    fmt::Write as _,
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use console::Style;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::{
    clients::{Door, Tally},
    machines::Machines,
};
use super::{
    DemoArgs,
    run::{Failed, Folder, ends},
};
use crate::cli::{self, Global, live::Live, print};

pub(super) use self::machines::NoServer;

/// How often the cluster is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const LOOKS_PER_S: u64 = 2;
/// In what a node dies and comes back, unless the demo is shorter.
const ROUND: Duration = Duration::from_secs(45);
/// How often lines are printed where nothing can be drawn over.
const LINES_EVERY: u64 = 4;

/// What happens to one node in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Well,
    /// The node at this place is dead.
    Dead(usize),
    /// It was started again.
    Back(usize),
}

impl Stage {
    fn at(since: Duration, lasts: Option<Duration>) -> Self {
        let round = lasts.map_or(ROUND, |lasts| lasts.min(ROUND)).max(Duration::from_millis(1)).as_secs_f64();
        let rounds = since.as_secs_f64() / round;
        // The first node goes on, so that whoever asks it meanwhile is answered.
        let node = if rounds % 2.0 < 1.0 { 1 } else { 2 };
        match rounds.fract() {
            part if part < 0.2 => Self::Well,
            part if part < 0.65 => Self::Dead(node),
            _ => Self::Back(node),
        }
    }

    fn told(self) -> String {
        match self {
            Self::Well => "all is well".to_owned(),
            Self::Dead(at) => format!("node-{} was killed: its twins go to the others", at + 1),
            Self::Back(at) => format!("node-{} was started again: it takes its share", at + 1),
        }
    }
}

/// Runs it; whether every number that was acknowledged is still there.
pub(super) async fn run(args: &DemoArgs, global: &Global) -> Result<bool, Failed> {
    let mut folder = Folder::new(global.data_dir.as_deref());
    if !global.json {
        print::line("starting three servers and three nodes")?;
    }
    // Dropped on Ctrl-C, they end: what they are started in, it does not reach.
    let machines = tokio::select! {
        started = Machines::start(&folder.path, &args.nats_server) => match started {
            Ok(machines) => machines,
            Err(error) => {
                folder.keep();
                return Err(error);
            }
        },
        () = ends(None) => return Ok(false),
    };
    let door = Door::new((0..machines::COUNT).map(|at| machines.url(at)), &machines.key)?;
    let tally = Arc::new(Tally::default());
    let clients = clients::start(&door, &tally);
    let mut demo = Demo { machines, tally, json: global.json, live: Live::new(), looks: 0, acknowledged: 0, killed: 0 };
    let watched = demo.watch(args.time, &folder.path).await;
    demo.tally.end();
    clients.join_all().await;
    let result = match watched {
        Ok(()) => demo.summary(&door).await,
        Err(error) => Err(error),
    };
    demo.machines.stop().await;
    result
}

struct Demo {
    machines: Machines,
    tally: Arc<Tally>,
    json: bool,
    live: Live,
    looks: u64,
    acknowledged: u64,
    killed: u64,
}

impl Demo {
    /// Until the time is over or somebody presses Ctrl-C; then every node runs.
    async fn watch(&mut self, time: Option<Duration>, folder: &Path) -> Result<(), Failed> {
        let hints = hints(&self.machines, folder);
        if !self.json && !self.live.is_terminal() {
            print::line(&hints)?;
        }
        let began = Instant::now();
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut ends = std::pin::pin!(ends(time));
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                () = &mut ends => break,
            }
            let stage = Stage::at(began.elapsed(), time);
            self.enter(stage).await?;
            self.show(stage, began.elapsed(), &hints).await?;
        }
        self.enter(Stage::Well).await
    }

    async fn enter(&mut self, stage: Stage) -> Result<(), Failed> {
        for at in 0..machines::COUNT {
            match (stage == Stage::Dead(at), self.machines.runs(at)) {
                (true, true) => {
                    self.machines.kill_node(at).await?;
                    self.killed += 1;
                }
                (false, false) => self.machines.start_node(at)?,
                (true, false) | (false, true) => {}
            }
        }
        Ok(())
    }

    async fn show(&mut self, stage: Stage, since: Duration, hints: &str) -> Result<(), Failed> {
        let acknowledged = self.tally.acknowledged.load(Relaxed);
        let new = acknowledged.saturating_sub(std::mem::replace(&mut self.acknowledged, acknowledged));
        self.looks += 1;
        if self.json || (!self.live.is_terminal() && self.looks % LINES_EVERY != 1) {
            return Ok(());
        }
        // The first node lives, but it may be busy.
        let view = self.machines.view(0).await.unwrap_or_default();
        let style = if stage == Stage::Well { Style::new().green() } else { Style::new().yellow() };
        let mut text = format!(
            "{}  {}\n{} clients   {} numbers/s, {acknowledged} acknowledged, {} tries again, longest wait {:.1} s\n\n",
            print::bold(&format!("{:>4} s", since.as_secs())),
            style.apply_to(stage.told()),
            clients::COUNT,
            new * LOOKS_PER_S,
            self.tally.retried.load(Relaxed),
            self.longest().as_secs_f64(),
        );
        write!(text, "{}", self.table(&view))?;
        if let Some(unowned) = view["unowned"].as_u64().filter(|unowned| *unowned > 0) {
            writeln!(text, "{unowned} of {} slots have no owner: calls to their twins wait", view["slots"])?;
        }
        text.push('\n');
        if self.live.is_terminal() {
            text.push_str(hints);
            return Ok(self.live.draw(&text)?);
        }
        Ok(print::line(&text)?)
    }

    fn table(&self, view: &Value) -> print::Table {
        let mut table = print::Table::new(&["NODE", "PROCESS", "STATE", "SLOTS"]);
        let nodes = view["nodes"].as_array().map_or(&[][..], Vec::as_slice);
        for at in 0..machines::COUNT {
            let name = format!("node-{}", at + 1);
            let seen = nodes.iter().find(|node| node["node"] == name.as_str());
            let state = seen.and_then(|node| node["state"].as_str()).unwrap_or("unknown").to_owned();
            let owned = seen.map_or_else(String::new, |node| node["owned"].to_string());
            let process = if self.machines.runs(at) { "runs" } else { "killed" };
            table.row([name, process.to_owned(), state, owned]);
        }
        table
    }

    fn longest(&self) -> Duration {
        Duration::from_millis(self.tally.longest_ms.load(Relaxed))
    }

    /// Reads every twin, and says whether it has what was acknowledged.
    async fn summary(&self, door: &Door) -> Result<bool, Failed> {
        let lost = self.tally.lost(door).await?;
        let acknowledged = self.tally.acknowledged.load(Relaxed);
        let retried = self.tally.retried.load(Relaxed);
        let longest = self.longest().as_secs_f64();
        if self.json {
            print::document(&json!({
                "acknowledged": acknowledged,
                "lost": lost,
                "retried": retried,
                "killed": self.killed,
                "longest_wait_s": longest,
            }))?;
        } else {
            print::line(&format!(
                "\nsummary: {acknowledged} numbers acknowledged, {lost} of them lost, {retried} tries again; {} times a \
                 node was killed, and no client waited longer than {longest:.1} s",
                self.killed
            ))?;
        }
        Ok(lost == 0 && acknowledged > 0)
    }
}

fn hints(machines: &Machines, folder: &Path) -> String {
    let twin = cli::program();
    format!(
        "ask the cluster in another terminal:\n  \
         export TWIN_NODE={} TWIN_KEY={}\n  \
         {twin} cluster\n  {twin} ls\n  {twin} get demo/counter-0\n\
         configuration and logs of all six lie in {}; Ctrl-C ends everything\n",
        machines.url(0),
        machines.key,
        folder.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_another_node_dies_and_comes_back() {
        let at = |second| Stage::at(Duration::from_secs(second), None);
        assert_eq!([at(0), at(10), at(30)], [Stage::Well, Stage::Dead(1), Stage::Back(1)]);
        assert_eq!([at(45), at(55), at(75)], [Stage::Well, Stage::Dead(2), Stage::Back(2)]);
        assert_eq!(at(90), Stage::Well);
        let short = |second| Stage::at(Duration::from_secs(second), Some(Duration::from_secs(20)));
        assert_eq!([short(0), short(5), short(14)], [Stage::Well, Stage::Dead(1), Stage::Back(1)]);
    }
}
