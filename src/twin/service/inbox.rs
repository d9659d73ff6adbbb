//! What is decided about commands.

use std::time::Duration;

use compact_str::CompactString;

use super::{
    Change, Command, Core, Draft, Service,
    command::{CommandEnd, Run, stop_after_errors},
    feature::check_name,
    limits::{
        COMMANDS_BYTES_MAX, COMMANDS_LIVE_MAX, INSTANCE_ID_BYTES_MAX, PARAMETERS_BYTES_MAX, RESULT_BYTES_MAX,
        SCHEMAS_BYTES_MAX, SCHEMAS_MAX, TIMEOUT_MAX,
    },
    message::{
        AckCommand, CancelCommand, DefineCommand, Finish, FinishCommand, GetCommand, ListCommands, NextCommands,
        PostCommand, Posted, Target, Written,
    },
    schema,
    settings::Settings,
    view::{CommandState, CommandView, CommandsView, DeliveryView},
};
use crate::{
    model::{Timestamp, telemetry::cut},
    twin::{Changes, Decide, Decision, Rejection, Turn},
};

impl Decide<PostCommand> for Service {
    fn decide(&self, message: &PostCommand, turn: &Turn<'_>) -> Result<Decision<Change, Posted>, Rejection> {
        check_name("command", &message.name)?;
        Rejection::within("parameters_bytes", PARAMETERS_BYTES_MAX, message.parameters.text().len())?;
        let mut draft = Draft::write(self, turn, message.if_match)?;
        if let Some(defined) = draft.core.schemas.iter().find(|defined| defined.command == message.name) {
            schema::check(&defined.schema.value(), &message.parameters.value())?;
        }
        let command = compose(&draft, message)?;
        let id = command.id;
        draft.push(Change::CommandPosted { command: Box::new(command) });
        Rejection::within("commands_live", COMMANDS_LIVE_MAX, draft.core.commands_live().count())?;
        Rejection::within("commands_bytes", COMMANDS_BYTES_MAX, draft.core.commands_live().map(Command::bytes).sum())?;
        let Decision { changes, reply: Written { revision }, .. } = draft.written();
        Ok(Decision::new(Posted { id, revision }).changes(changes))
    }
}

fn compose(draft: &Draft<'_>, message: &PostCommand) -> Result<Command, Rejection> {
    let deliver_by = draft.now().after(timeout(message.delivery_timeout_ms, Settings::chosen().delivery_timeout())?);
    let runs = match &message.target {
        Target::Instance(id) if id.is_empty() || id.len() > INSTANCE_ID_BYTES_MAX => {
            return Err(Rejection::invalid(format!("an instance id has 1 to {INSTANCE_ID_BYTES_MAX} bytes")));
        }
        Target::Any | Target::Instance(_) => Vec::new(),
        Target::All => {
            let up = draft.core.instances.iter().filter(|instance| instance.is_up());
            up.map(|instance| Run { instance: instance.number, state: CommandState::Queued, due_at: deliver_by })
                .collect()
        }
    };
    if message.target == Target::All && runs.is_empty() {
        return Err(Rejection::conflict("no instance is up; a command for all needs one"));
    }
    if message.pace.is_some_and(|pace| pace.concurrency_max == 0) {
        return Err(Rejection::invalid("'concurrency_max' is at least 1"));
    }
    let execution = timeout(message.execution_timeout_ms, Settings::chosen().execution_timeout())?;
    Ok(Command {
        id: draft.version_next(),
        name: message.name.clone(),
        parameters: Some(message.parameters.clone()),
        target: message.target.clone(),
        posted_at: draft.now(),
        deliver_by,
        execution_timeout_ms: u64::try_from(execution.as_millis()).unwrap_or(u64::MAX),
        pace: message.pace,
        state: CommandState::Queued,
        ended_at: None,
        result: None,
        error: None,
        runs,
    })
}

fn timeout(ms: Option<u64>, default: Duration) -> Result<Duration, Rejection> {
    let timeout = ms.map_or(default, Duration::from_millis);
    if timeout.is_zero() || timeout > TIMEOUT_MAX {
        return Err(Rejection::invalid(format!("a timeout is between 1 ms and {} ms", TIMEOUT_MAX.as_millis())));
    }
    Ok(timeout)
}

/// What a command is to an instance that asks.
enum Offer {
    /// Not for it, or not now.
    None,
    /// For it, newly.
    New,
    /// Handed to it before and not acknowledged.
    Again(Timestamp),
}

fn offer(command: &Command, instance: u32, id: &str, now: Timestamp) -> Offer {
    if let Some(run) = command.run(instance) {
        return match run.state {
            CommandState::Queued if run.due_at > now && command.has_pace() => Offer::New,
            CommandState::Delivered if run.due_at > now => Offer::Again(run.due_at),
            CommandState::Queued
            | CommandState::Delivered
            | CommandState::Acknowledged
            | CommandState::Succeeded
            | CommandState::Failed
            | CommandState::Expired
            | CommandState::Cancelled => Offer::None,
        };
    }
    let is_for_it = match &command.target {
        Target::Any => command.runs.is_empty(),
        Target::Instance(target) => target == id,
        Target::All => false,
    };
    if is_for_it && command.deliver_by > now { Offer::New } else { Offer::None }
}

impl Decide<NextCommands> for Service {
    fn decide(
        &self,
        message: &NextCommands,
        turn: &Turn<'_>,
    ) -> Result<Decision<Change, Vec<DeliveryView>>, Rejection> {
        let mut draft = Draft::amend(self, turn, None)?;
        let instance = draft.greet(&message.instance, None)?;
        let now = draft.now();
        let mut deliveries = Vec::new();
        let live: Vec<Command> = draft.core.commands_live().cloned().collect();
        for command in live {
            if deliveries.len() >= usize::from(message.limit.max(1)) {
                break;
            }
            let finish_by = match offer(&command, instance, &message.instance, now) {
                Offer::None => continue,
                Offer::Again(due_at) => due_at,
                Offer::New => {
                    let due_at = now.after(Duration::from_millis(command.execution_timeout_ms));
                    let state = CommandState::Delivered;
                    draft.push(Change::CommandMoved { id: command.id, instance, state, due_at });
                    due_at
                }
            };
            let parameters = command.parameters.unwrap_or_default();
            deliveries.push(DeliveryView { id: command.id, name: command.name, parameters, finish_by });
        }
        Ok(Decision::new(deliveries).changes(draft.settled()))
    }

    fn observe(&mut self, message: &NextCommands, turn: &Turn<'_>) -> Changes<Change> {
        self.hear(Some(&message.instance), turn.now);
        Changes::new()
    }
}

/// The instance's number, and where the command is there.
fn run_of<'a>(core: &'a Core, id: u64, instance: &str) -> Result<(u32, &'a Run, &'a Command), Rejection> {
    let command = core.command(id).ok_or_else(|| Rejection::not_found(format!("command {id}")))?;
    let found =
        core.find_instance(instance).and_then(|instance| Some((instance.number, command.run(instance.number)?)));
    match found {
        Some((number, run)) => Ok((number, run, command)),
        None => Err(Rejection::conflict(format!("command {id} was not handed to instance '{instance}'"))),
    }
}

impl Decide<AckCommand> for Service {
    fn decide(&self, message: &AckCommand, turn: &Turn<'_>) -> Result<Decision<Change, Written>, Rejection> {
        let mut draft = Draft::amend(self, turn, None)?;
        let (instance, run, _) = run_of(&draft.core, message.id, &message.instance)?;
        match run.state {
            CommandState::Acknowledged => {}
            CommandState::Delivered => {
                let due_at = run.due_at;
                let state = CommandState::Acknowledged;
                draft.push(Change::CommandMoved { id: message.id, instance, state, due_at });
            }
            state @ (CommandState::Queued
            | CommandState::Succeeded
            | CommandState::Failed
            | CommandState::Expired
            | CommandState::Cancelled) => return Err(wrong_state(message.id, state)),
        }
        Ok(draft.written())
    }
}

fn wrong_state(id: u64, state: CommandState) -> Rejection {
    Rejection::conflict(format!("command {id} is {} there", state.as_str()))
}

impl Decide<FinishCommand> for Service {
    fn decide(&self, message: &FinishCommand, turn: &Turn<'_>) -> Result<Decision<Change, Written>, Rejection> {
        let mut draft = Draft::amend(self, turn, None)?;
        let (instance, run, command) = run_of(&draft.core, message.id, &message.instance)?;
        let end = match &message.finish {
            Finish::Succeeded { result } => {
                Rejection::within(
                    "result_bytes",
                    RESULT_BYTES_MAX,
                    result.as_ref().map_or(0, |result| result.text().len()),
                )?;
                CommandEnd { state: CommandState::Succeeded, result: result.clone(), error: None }
            }
            Finish::Failed { error } => {
                let error = Some(CompactString::new(cut(error, RESULT_BYTES_MAX)));
                CommandEnd { state: CommandState::Failed, result: None, error }
            }
        };
        // The same end once more: the answer to the first was lost.
        if run.state == end.state && (command.result == end.result || end.result.is_none()) {
            return Ok(draft.written());
        }
        match run.state {
            CommandState::Delivered | CommandState::Acknowledged => {
                draft.push(Change::CommandEnded { id: message.id, instance, end });
                stop_after_errors(&mut draft, message.id);
            }
            state @ (CommandState::Queued
            | CommandState::Succeeded
            | CommandState::Failed
            | CommandState::Expired
            | CommandState::Cancelled) => return Err(wrong_state(message.id, state)),
        }
        Ok(draft.written())
    }
}

impl Decide<CancelCommand> for Service {
    fn decide(&self, message: &CancelCommand, turn: &Turn<'_>) -> Result<Decision<Change, Written>, Rejection> {
        let mut draft = Draft::amend(self, turn, message.if_match)?;
        let id = message.id;
        let command = draft.core.command(id).ok_or_else(|| Rejection::not_found(format!("command {id}")))?;
        if command.is_live() {
            draft.push(Change::CommandClosed { id, end: CommandEnd::cancelled() });
        } else if command.state != CommandState::Cancelled {
            return Err(Rejection::conflict(format!("command {id} has ended: {}", command.state.as_str())));
        }
        Ok(draft.written())
    }
}

impl Decide<GetCommand> for Service {
    fn decide(&self, message: &GetCommand, turn: &Turn<'_>) -> Result<Decision<Change, CommandView>, Rejection> {
        let core = self.existing(turn)?;
        match core.command(message.id) {
            Some(command) => Ok(Decision::new(command.view(core))),
            None => Err(Rejection::not_found(format!("command {}", message.id))),
        }
    }
}

impl Decide<ListCommands> for Service {
    fn decide(&self, message: &ListCommands, turn: &Turn<'_>) -> Result<Decision<Change, CommandsView>, Rejection> {
        let core = self.existing(turn)?;
        let before = message.before.unwrap_or(u64::MAX);
        let mut rest = core.commands.iter().rev().filter(|command| command.id < before).peekable();
        let limit = usize::from(message.limit.max(1));
        let commands: Vec<_> = rest.by_ref().take(limit).map(|command| command.view(core)).collect();
        let next = rest.peek().and(commands.last()).map(|last| last.id);
        Ok(Decision::new(CommandsView { commands, next }))
    }
}

impl Decide<DefineCommand> for Service {
    fn decide(&self, message: &DefineCommand, turn: &Turn<'_>) -> Result<Decision<Change, Written>, Rejection> {
        check_name("command", &message.name)?;
        let mut draft = match &message.schema {
            Some(schema) => {
                schema::check_definition(&schema.value())?;
                Draft::write(self, turn, message.if_match)?
            }
            None => Draft::amend(self, turn, message.if_match)?,
        };
        let known = draft.core.schemas.iter().find(|known| known.command == message.name).map(|known| &known.schema);
        if known != message.schema.as_ref() {
            draft.push(Change::CommandDefined { name: message.name.clone(), schema: message.schema.clone() });
            let schemas = &draft.core.schemas;
            Rejection::within("schemas", SCHEMAS_MAX, schemas.len())?;
            let bytes = schemas.iter().map(|schema| 8 + schema.command.len() + schema.schema.text().len()).sum();
            Rejection::within("schemas_bytes", SCHEMAS_BYTES_MAX, bytes)?;
        }
        Ok(draft.written())
    }
}
