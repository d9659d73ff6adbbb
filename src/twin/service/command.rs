//! The command inbox: queued → delivered → acknowledged → succeeded or failed; or expired; or cancelled.
//!
//! An instance collects what is for it; what it collected and has not acknowledged it is handed again, since the
//! answer may have been lost on its way: instances recognise a command by its id.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{
    Change, Core, Draft, Json,
    core::Schema,
    limits::{COMMANDS_BYTES_MAX, COMMANDS_ENDED_MAX, RESULT_BYTES_MAX},
    message::{Pace, Target},
    view::{CommandState, CommandView, RunView},
};
use crate::model::Timestamp;

/// A command in the inbox, or one that ended not long ago.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    pub(super) id: u64,
    pub(super) name: CompactString,
    /// Dropped when it ends.
    pub(super) parameters: Option<Json>,
    pub(super) target: Target,
    pub(super) posted_at: Timestamp,
    pub(super) deliver_by: Timestamp,
    pub(super) execution_timeout_ms: u64,
    pub(super) pace: Option<Pace>,
    pub(super) state: CommandState,
    pub(super) ended_at: Option<Timestamp>,
    pub(super) result: Option<Json>,
    pub(super) error: Option<CompactString>,
    pub(super) runs: Vec<Run>,
}

/// A command at one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub(super) instance: u32,
    pub(super) state: CommandState,
    pub(super) due_at: Timestamp,
}

/// How a command ended somewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandEnd {
    /// The final state.
    pub state: CommandState,
    /// What came of it.
    pub result: Option<Json>,
    /// Why it did not succeed.
    pub error: Option<CompactString>,
}

impl CommandEnd {
    pub(super) fn expired(why: &'static str) -> Self {
        Self { state: CommandState::Expired, result: None, error: Some(CompactString::const_new(why)) }
    }

    pub(super) fn cancelled() -> Self {
        Self { state: CommandState::Cancelled, result: None, error: None }
    }
}

impl Command {
    pub(super) fn is_live(&self) -> bool {
        !self.state.is_final()
    }

    /// Bytes as stored, at most; a live one counts its result in advance.
    pub(super) fn bytes(&self) -> usize {
        const FIXED: usize = 64;
        const RUN: usize = 16;
        let text = |json: &Option<Json>| json.as_ref().map_or(0, |json| json.text().len());
        let target = match &self.target {
            Target::Instance(id) => id.len(),
            Target::Any | Target::All => 0,
        };
        let outcome = text(&self.result) + self.error.as_ref().map_or(0, CompactString::len);
        let reserved = if self.is_live() { RESULT_BYTES_MAX } else { 0 };
        // Any and Instance get their one run later.
        FIXED + self.name.len() + text(&self.parameters) + target + outcome.max(reserved) + self.runs.len().max(1) * RUN
    }

    /// Whether it waits for the first instance to collect it.
    fn is_unclaimed(&self) -> bool {
        self.is_live() && self.runs.is_empty()
    }

    /// When time moves it on.
    pub(super) fn due_at(&self) -> Option<Timestamp> {
        if !self.is_live() {
            return None;
        }
        let runs = self.runs.iter().filter(|run| !run.state.is_final()).map(|run| run.due_at);
        runs.chain(self.is_unclaimed().then_some(self.deliver_by)).min()
    }

    /// Whether it may be handed to one more instance.
    pub(super) fn has_pace(&self) -> bool {
        let Some(pace) = self.pace else { return true };
        let count = |wanted: fn(CommandState) -> bool| self.runs.iter().filter(|run| wanted(run.state)).count();
        let at_work = count(|state| matches!(state, CommandState::Delivered | CommandState::Acknowledged));
        at_work < usize::from(pace.concurrency_max) && !self.has_too_many_errors()
    }

    pub(super) fn has_too_many_errors(&self) -> bool {
        let failed = |run: &&Run| matches!(run.state, CommandState::Failed | CommandState::Expired);
        self.pace.is_some_and(|pace| self.runs.iter().filter(failed).count() > usize::from(pace.errors_max))
    }

    pub(super) fn run(&self, instance: u32) -> Option<&Run> {
        self.runs.iter().find(|run| run.instance == instance)
    }

    fn run_mut(&mut self, instance: u32) -> &mut Run {
        let at = self.runs.iter().position(|run| run.instance == instance).unwrap_or_else(|| {
            self.runs.push(Run { instance, state: CommandState::Queued, due_at: self.deliver_by });
            self.runs.len() - 1
        });
        &mut self.runs[at]
    }

    /// Where it is as a whole: as far as its furthest run while one is under way, as bad as its worst at the end.
    fn overall(&self) -> CommandState {
        const WORST_FIRST: [CommandState; 4] =
            [CommandState::Failed, CommandState::Expired, CommandState::Cancelled, CommandState::Succeeded];
        let any = |state: CommandState| self.runs.iter().any(|run| run.state == state);
        if !self.runs.is_empty() && self.runs.iter().all(|run| run.state.is_final()) {
            return WORST_FIRST.into_iter().find(|state| any(*state)).unwrap_or(CommandState::Succeeded);
        }
        if any(CommandState::Acknowledged) {
            CommandState::Acknowledged
        } else if self.runs.iter().any(|run| run.state != CommandState::Queued) {
            CommandState::Delivered
        } else {
            CommandState::Queued
        }
    }

    fn settle(&mut self, at: Timestamp) {
        self.state = self.overall();
        self.end_if_final(at);
    }

    fn end_if_final(&mut self, at: Timestamp) {
        if self.state.is_final() {
            self.ended_at = Some(at);
            self.parameters = None;
        }
    }

    fn close(&mut self, end: &CommandEnd, at: Timestamp) {
        for run in self.runs.iter_mut().filter(|run| !run.state.is_final()) {
            run.state = end.state;
        }
        self.note(end);
        self.state = if self.runs.is_empty() { end.state } else { self.overall() };
        self.end_if_final(at);
    }

    /// Keeps one outcome: the newest, but no result in place of an error.
    fn note(&mut self, end: &CommandEnd) {
        if end.error.is_some() {
            (self.result, self.error) = (None, end.error.clone());
        } else if self.error.is_none() && end.result.is_some() {
            self.result.clone_from(&end.result);
        }
    }

    pub(super) fn view(&self, core: &Core) -> CommandView {
        let runs = self.runs.iter().map(|run| RunView {
            instance: core.instance_number(run.instance).map(|instance| instance.id.clone()),
            state: run.state,
            due_at: (!run.state.is_final()).then_some(run.due_at),
        });
        CommandView {
            id: self.id,
            name: self.name.clone(),
            parameters: self.parameters.clone(),
            state: self.state,
            posted_at: self.posted_at,
            ended_at: self.ended_at,
            result: self.result.clone(),
            error: self.error.clone(),
            runs: runs.collect(),
        }
    }
}

impl Core {
    pub(super) fn command(&self, id: u64) -> Option<&Command> {
        self.commands.iter().find(|command| command.id == id)
    }

    pub(super) fn commands_live(&self) -> impl Iterator<Item = &Command> {
        self.commands.iter().filter(|command| command.is_live())
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "other changes have other readers")]
    pub(super) fn apply_command(&mut self, change: &Change, at: Timestamp) {
        match change {
            Change::CommandPosted { command } => self.commands.push((**command).clone()),
            Change::CommandMoved { id, instance, state, due_at } => self.amend_command(*id, |command| {
                let run = command.run_mut(*instance);
                (run.state, run.due_at) = (*state, *due_at);
                command.settle(at);
            }),
            Change::CommandEnded { id, instance, end } => self.amend_command(*id, |command| {
                command.run_mut(*instance).state = end.state;
                command.note(end);
                command.settle(at);
            }),
            Change::CommandClosed { id, end } => self.amend_command(*id, |command| command.close(end, at)),
            Change::CommandStopped { id } => self.amend_command(*id, |command| {
                for run in command.runs.iter_mut().filter(|run| run.state == CommandState::Queued) {
                    run.state = CommandState::Cancelled;
                }
                command.settle(at);
            }),
            Change::CommandDefined { name, schema } => {
                self.schemas.retain(|known| known.command != *name);
                if let Some(schema) = schema {
                    self.schemas.push(Schema { command: name.clone(), schema: schema.clone() });
                }
            }
            _ => {}
        }
        self.forget_ended();
    }

    fn amend_command(&mut self, id: u64, with: impl FnOnce(&mut Command)) {
        if let Some(command) = self.commands.iter_mut().find(|command| command.id == id) {
            with(command);
        }
    }

    /// Lets go of the commands that ended longest ago, until the rest is within bounds.
    fn forget_ended(&mut self) {
        loop {
            let ended = self.commands.iter().filter(|command| !command.is_live());
            let fits = ended.clone().count() <= COMMANDS_ENDED_MAX && self.commands_bytes() <= COMMANDS_BYTES_MAX;
            let Some(oldest) = ended.min_by_key(|command| (command.ended_at, command.id)).map(|command| command.id)
            else {
                return;
            };
            if fits {
                return;
            }
            self.commands.retain(|command| command.id != oldest);
        }
    }

    fn commands_bytes(&self) -> usize {
        self.commands.iter().map(Command::bytes).sum()
    }
}

/// Decides what time does to commands.
pub(super) fn expire(draft: &mut Draft<'_>) {
    let now = draft.now();
    let due: Vec<u64> = draft
        .core
        .commands_live()
        .filter(|command| command.due_at().is_some_and(|due_at| due_at <= now))
        .map(|command| command.id)
        .collect();
    for id in due {
        expire_one(draft, id);
    }
}

fn expire_one(draft: &mut Draft<'_>, id: u64) {
    let now = draft.now();
    let Some(command) = draft.core.command(id).cloned() else { return };
    if command.is_unclaimed() {
        draft.push(Change::CommandClosed { id, end: CommandEnd::expired("not collected in time") });
        return;
    }
    for run in command.runs.iter().filter(|run| !run.state.is_final() && run.due_at <= now) {
        let why = if run.state == CommandState::Queued { "not collected in time" } else { "not finished in time" };
        draft.push(Change::CommandEnded { id, instance: run.instance, end: CommandEnd::expired(why) });
    }
    stop_after_errors(draft, id);
}

/// Cancels what is still queued of a command that failed too often.
pub(super) fn stop_after_errors(draft: &mut Draft<'_>, id: u64) {
    let stops = draft.core.command(id).is_some_and(|command| command.is_live() && command.has_too_many_errors());
    if stops {
        draft.push(Change::CommandStopped { id });
    }
}
