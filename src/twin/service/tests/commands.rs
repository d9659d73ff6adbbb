use super::*;
use crate::twin::service::{
    message::{
        AckCommand, CancelCommand, DefineCommand, Finish, FinishCommand, GetCommand, ListCommands, NextCommands, Pace,
        PostCommand, Target,
    },
    view::CommandView,
};

fn command(target: Target) -> PostCommand {
    PostCommand {
        name: "reload".into(),
        parameters: json(r#"{"deep":true}"#),
        target,
        delivery_timeout_ms: Some(60_000),
        execution_timeout_ms: Some(30_000),
        pace: None,
        if_match: None,
    }
}

fn next(world: &mut World, instance: &str) -> Vec<u64> {
    let deliveries = world.tell(NextCommands { instance: instance.into(), limit: 10 }).unwrap();
    deliveries.iter().map(|delivery| delivery.id).collect()
}

fn finish(world: &mut World, id: u64, instance: &str, ok: bool) -> Result<u64, Rejection> {
    let finish = if ok {
        Finish::Succeeded { result: Some(json(r#"{"n":1}"#)) }
    } else {
        Finish::Failed { error: "broken".into() }
    };
    world.tell(FinishCommand { id, instance: instance.into(), finish }).map(|written| written.revision)
}

fn get(world: &mut World, id: u64) -> CommandView {
    world.tell(GetCommand { id }).unwrap()
}

#[test]
fn a_command_for_any_goes_to_the_first_that_asks_and_through_every_state() {
    let mut world = World::new();
    world.speak("i1", "1").unwrap();
    let id = world.tell(command(Target::Any)).unwrap().id;
    assert_eq!(get(&mut world, id).state, CommandState::Queued);
    assert_eq!(next(&mut world, "i1"), [id]);
    assert_eq!(next(&mut world, "i2"), [0; 0], "it is i1's now");
    assert_eq!(next(&mut world, "i1"), [id], "handed again until it is acknowledged");
    world.tell(AckCommand { id, instance: "i1".into() }).unwrap();
    assert_eq!(get(&mut world, id).state, CommandState::Acknowledged);
    assert_eq!(next(&mut world, "i1"), [0; 0]);
    assert!(finish(&mut world, id, "i2", true).is_err());
    finish(&mut world, id, "i1", true).unwrap();
    let revision = world.revision;
    finish(&mut world, id, "i1", true).unwrap();
    assert_eq!(world.revision, revision, "the same end twice is one end");
    let ended = get(&mut world, id);
    assert_eq!((ended.state, ended.result), (CommandState::Succeeded, Some(json(r#"{"n":1}"#))));
    assert!(finish(&mut world, id, "i1", false).is_err());
}

#[test]
fn a_command_nobody_collects_or_finishes_expires() {
    let mut world = World::new();
    world.speak("i1", "1").unwrap();
    let uncollected = world.tell(command(Target::Instance("elsewhere".into()))).unwrap().id;
    let unfinished = world.tell(command(Target::Any)).unwrap().id;
    assert_eq!(next(&mut world, "i1"), [unfinished]);
    world.pass(Duration::from_secs(31));
    assert_eq!(get(&mut world, unfinished).state, CommandState::Expired);
    assert_eq!(get(&mut world, uncollected).state, CommandState::Queued);
    assert!(finish(&mut world, unfinished, "i1", true).is_err(), "too late");
    world.pass(Duration::from_secs(30));
    assert_eq!(get(&mut world, uncollected).state, CommandState::Expired);
}

#[test]
fn a_command_for_all_keeps_its_pace_and_stops_after_too_many_errors() {
    let mut world = World::new();
    for instance in ["a", "b", "c", "d"] {
        world.speak(instance, "1").unwrap();
    }
    let pace = Some(Pace { concurrency_max: 1, errors_max: 0 });
    let id = world.tell(PostCommand { pace, ..command(Target::All) }).unwrap().id;
    assert_eq!(next(&mut world, "a"), [id]);
    assert_eq!(next(&mut world, "b"), [0; 0], "one at a time");
    finish(&mut world, id, "a", true).unwrap();
    assert_eq!(next(&mut world, "b"), [id]);
    finish(&mut world, id, "b", false).unwrap();
    let stopped = get(&mut world, id);
    assert_eq!((stopped.state, stopped.error.as_deref()), (CommandState::Failed, Some("broken")));
    let states: Vec<_> = stopped.runs.iter().map(|run| run.state).collect();
    assert_eq!(
        states,
        [CommandState::Succeeded, CommandState::Failed, CommandState::Cancelled, CommandState::Cancelled]
    );
}

#[test]
fn a_cancelled_command_is_not_handed_out() {
    let mut world = World::new();
    let id = world.tell(command(Target::Any)).unwrap().id;
    world.tell(CancelCommand { id, if_match: None }).unwrap();
    assert_eq!(next(&mut world, "i1"), [0; 0]);
    assert_eq!(get(&mut world, id).state, CommandState::Cancelled);
}

#[test]
fn the_inbox_is_bounded_and_lists_newest_first() {
    let mut world = World::new();
    world.speak("i1", "1").unwrap();
    let posted = (0..100).map_while(|_| world.tell(command(Target::Any)).ok()).count();
    assert!((16..=limits::COMMANDS_LIVE_MAX).contains(&posted), "{posted}");
    assert!(matches!(world.tell(command(Target::Any)), Err(Rejection::Limit { .. })));
    let page = world.tell(ListCommands { before: None, limit: 10 }).unwrap();
    assert!(page.commands.is_sorted_by(|a, b| a.id > b.id));
    let rest = world.tell(ListCommands { before: page.next, limit: 100 }).unwrap();
    assert_eq!((page.commands.len() + rest.commands.len(), rest.next), (posted, None));
}

#[test]
fn parameters_are_checked_once_a_schema_is_defined() {
    let mut world = World::new();
    let schema = Some(json(r#"{"type":"object","required":["depth"]}"#));
    world.tell(DefineCommand { name: "reload".into(), schema, if_match: None }).unwrap();
    assert!(matches!(world.tell(command(Target::Any)), Err(Rejection::Invalid { .. })));
    world.tell(DefineCommand { name: "reload".into(), schema: None, if_match: None }).unwrap();
    assert!(world.tell(command(Target::Any)).is_ok());
}
