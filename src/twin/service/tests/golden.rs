//! A state and changes of every schema that was ever released are read as they were meant.

use std::path::PathBuf;

use super::*;
use crate::{
    model::{
        grant::{Effect, Grant},
        scope::{Operations, Pattern},
    },
    twin::{
        Durable, Persistence, Shape,
        part::{Bytes, Right},
        service::{
            access::{Access, Profile},
            command::{Command, CommandEnd, Run},
            core::{Alert, Health, Schema},
            feature::{Acknowledgement, Feature},
            instance::{Farewell, Instance},
            message::{Pace, Target},
            parts::Parts,
            view::{Presence, Reason, Status},
        },
    },
};

/// What the records and journal entries of schema 1 carry beside their bytes.
const SHAPE_1: Shape = Shape { schema: 1, fingerprint: 0xb28e_1377 };
/// The same of schema 2, which has grants and parts.
const SHAPE_2: Shape = Shape { schema: 2, fingerprint: 0x4f83_bbd4 };

fn golden(name: &str) -> PathBuf {
    PathBuf::from("tests/golden").join(name)
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix_ms(1_700_000_000_000 + seconds * 1000)
}

fn alert() -> Alert {
    let key = "error_rate/server/GET \u{2f}".into();
    Alert { key, status: Status::Unhealthy, opened_at: at(9), value: 0.25, expected: 0.001 }
}

fn reasons() -> Vec<Reason> {
    vec![Reason { status: Status::Unhealthy, code: "alert".into(), subject: "error_rate".into() }]
}

fn acknowledgement() -> Acknowledgement {
    Acknowledgement { instance: 2, version: 7, error: Some("no such limit".into()), at: at(8) }
}

fn command(id: u64, state: CommandState, target: Target) -> Command {
    let is_live = !state.is_final();
    Command {
        id,
        name: "restart".into(),
        parameters: is_live.then(|| json(r#"{"grace_s":5}"#)),
        target,
        posted_at: at(4),
        deliver_by: at(64),
        execution_timeout_ms: 30_000,
        pace: is_live.then_some(Pace { concurrency_max: 2, errors_max: 1 }),
        state,
        ended_at: (!is_live).then(|| at(6)),
        result: (!is_live).then(|| json(r#"{"restarted":true}"#)),
        error: (!is_live).then(|| "late".into()),
        runs: vec![Run { instance: 2, state, due_at: at(34) }],
    }
}

/// Every field has something in it.
fn state_1() -> Core {
    let instance = |number, id: &str, presence, health| Instance {
        number,
        id: id.into(),
        version: "1.2.3".into(),
        presence,
        presence_since: at(1),
        first_seen: at(0),
        health,
        health_reason: "starting".into(),
    };
    let feature = Feature {
        name: "limits".into(),
        desired: Some(json(r#"{"rps":100}"#)),
        desired_version: 7,
        reported: Some(json(r#"{"rps":90}"#)),
        reported_version: 6,
        effective: Some(json(r#"{"rps":90,"burst":5}"#)),
        diverged_since: Some(at(7)),
        acknowledgements: vec![acknowledgement()],
    };
    Core {
        id: "shop/orders".into(),
        created_at: at(0),
        exists: true,
        removed: false,
        attributes: json(r#"{"team":"größe"}"#),
        environment: "production".into(),
        version: "1.2.3".into(),
        instances: vec![
            instance(1, "a", Presence::Lost, Status::Unknown),
            instance(2, "b", Presence::Up, Status::Degraded),
        ],
        instance_next: 3,
        presence_from: at(2),
        features: vec![feature],
        commands: vec![
            command(300, CommandState::Acknowledged, Target::All),
            command(299, CommandState::Failed, Target::Instance("b".into())),
        ],
        schemas: vec![Schema { command: "restart".into(), schema: json(r#"{"type":"object"}"#) }],
        alerts: vec![alert()],
        health: Health { status: Status::Unhealthy, since: at(9), reasons: reasons() },
    }
}

/// One of every kind.
fn changes_1() -> Vec<Change> {
    let (id, instance, number) = (300, 2, 2);
    let feature = || "limits".into();
    let end = CommandEnd { state: CommandState::Succeeded, result: Some(json("1")), error: None };
    vec![
        Change::Created { attributes: json(r#"{"team":"a"}"#) },
        Change::Removed,
        Change::Attributes { attributes: json("{}") },
        Change::Environment { environment: "production".into() },
        Change::InstanceSeen { id: "b".into(), version: "1.2.3".into() },
        Change::InstanceVersion { number, version: "1.2.4".into() },
        Change::InstancePresence { number, presence: Presence::Lost },
        Change::InstanceHealth { number, status: Status::Degraded, reason: "warm-up".into() },
        Change::InstanceGone { number, id: "b".into(), farewell: Farewell::Displaced },
        Change::PresenceRearmed,
        Change::Desired { feature: feature(), document: Some(json(r#"{"rps":1}"#)), version: 7 },
        Change::Reported { feature: feature(), document: None, version: 8 },
        Change::Effective { feature: feature(), document: Some(json("[null]")) },
        Change::Acknowledged { feature: feature(), acknowledgement: acknowledgement() },
        Change::InSync { feature: feature(), in_sync: true },
        Change::CommandPosted { command: Box::new(command(id, CommandState::Queued, Target::Any)) },
        Change::CommandMoved { id, instance, state: CommandState::Delivered, due_at: at(5) },
        Change::CommandEnded { id, instance, end: end.clone() },
        Change::CommandClosed { id, end },
        Change::CommandStopped { id },
        Change::CommandDefined { name: "restart".into(), schema: Some(json("{}")) },
        Change::AlertOpened { alert: alert() },
        Change::AlertClosed { key: "error_rate".into() },
        Change::Health { from: Status::Healthy, status: Status::Unhealthy, reasons: reasons() },
    ]
}

fn grant() -> Grant {
    Grant {
        effect: Effect::Deny,
        operations: Operations::Some(vec!["get".into(), "list".into()]),
        scope: Pattern::parse("state:statestore/private/*").unwrap(),
        expires_at: Some(at(99)),
    }
}

fn right() -> Right {
    Right { capability: "state".into(), name: "statestore/private/1".into(), operation: "get".into() }
}

/// What schema 2 has beside the core; the part is of a capability that no build ever knew.
fn access_2() -> Access {
    let grants = vec![grant(), Grant { operations: Operations::All, expires_at: None, ..grant() }];
    Access { profile: Some(Profile::None), grants, denials: vec![(7, at(3))] }
}

fn parts_2() -> Parts {
    let stored = (vec![("teleport", 3_u16, Bytes(vec![1, 2, 3]))], vec!["retired"], at(5));
    from_bytes(&to_bytes(&stored)).unwrap()
}

fn changes_2() -> Vec<Change> {
    let mut changes = changes_1();
    changes.extend([
        Change::Granted { grant: grant() },
        Change::GrantTaken { grant: grant() },
        Change::ProfileChosen { profile: Profile::Standard },
        Change::Denied { right: right(), rule: "deny get state:*".into() },
        Change::Part { part: "teleport".into(), schema: 3, change: Bytes(vec![4, 5]) },
        Change::PartsRetiring,
        Change::PartRetired { part: "retired".into() },
    ]);
    changes
}

fn written() -> [(&'static str, Vec<u8>); 2] {
    let mut service = Service::create("shop/orders");
    (service.core, service.access, service.parts) = (state_1(), access_2(), parts_2());
    let mut state = Vec::new();
    Durable::encode(&service, &mut state);
    let changes = changes_2().into_iter().map(|change| {
        let mut bytes = Vec::new();
        <Durable as Persistence<Service>>::encode_change(&change, &mut bytes);
        bytes
    });
    // As the changes of an entry of the journal lie there.
    [("service-2-state.bin", state), ("service-2-changes.bin", to_bytes(&changes.collect::<Vec<_>>()))]
}

#[test]
fn a_service_and_its_changes_of_schema_1_are_read_as_they_were_meant() {
    let state = std::fs::read(golden("service-1-state.bin")).unwrap();
    let service: Service = Durable::decode(SHAPE_1, &state).unwrap();
    assert_eq!(service.core, state_1());
    assert_eq!(service.access, Access::default());
    assert_eq!(read_changes(SHAPE_1, "service-1-changes.bin"), changes_1());
}

fn read_changes(shape: Shape, file: &str) -> Vec<Change> {
    let changes: Vec<Vec<u8>> = from_bytes(&std::fs::read(golden(file)).unwrap()).unwrap();
    let read = changes.iter().map(|change| <Durable as Persistence<Service>>::decode_change(shape, change).unwrap());
    read.collect()
}

#[test]
fn a_service_and_its_changes_of_schema_2_are_read_as_they_were_meant() {
    let state = std::fs::read(golden("service-2-state.bin")).unwrap();
    let service: Service = Durable::decode(SHAPE_2, &state).unwrap();
    assert_eq!(service.core, state_1());
    assert_eq!(service.access, access_2());
    assert_eq!(to_bytes(&service.parts), to_bytes(&parts_2()), "an unknown part is kept as it is");
    assert_eq!(read_changes(SHAPE_2, "service-2-changes.bin"), changes_2());
}

#[test]
fn a_service_and_its_changes_are_still_written_in_the_committed_schema() {
    assert_eq!(<Durable as Persistence<Service>>::SHAPE, SHAPE_2);
    for (name, bytes) in written() {
        assert!(bytes == std::fs::read(golden(name)).unwrap(), "{name}: a new schema needs a new number and file");
    }
}

/// Run by hand when a schema is new: `cargo test --lib write_golden_services -- --ignored`.
#[test]
#[ignore = "writes the files that the other tests read"]
fn write_golden_services_that_are_missing() {
    for (name, bytes) in written() {
        if !golden(name).exists() {
            std::fs::write(golden(name), bytes).unwrap();
        }
    }
}
