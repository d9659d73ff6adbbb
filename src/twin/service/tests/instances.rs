use super::*;
use crate::twin::service::{
    message::{
        Applied, Create, Deregister, GetView, Heartbeat, NextCommands, Remove, Report, SelfHealth, SetAttributes,
    },
    view::{Presence, ServiceView, Status},
};

fn view(world: &mut World) -> ServiceView {
    *world.tell(GetView::default()).unwrap()
}

#[test]
fn the_first_telemetry_brings_a_twin_into_being_and_the_next_changes_nothing() {
    let mut world = World::new();
    assert!(matches!(world.tell(GetView::default()), Err(Rejection::NotFound { .. })));
    world.speak("i1", "1.0").unwrap();
    let revision = world.revision;
    world.now = world.now.after(Duration::from_secs(5));
    world.speak("i1", "1.0").unwrap();
    assert_eq!(world.revision, revision);
    let view = view(&mut world);
    assert_eq!((view.namespace.as_str(), view.name.as_str()), ("shop", "orders"));
    assert_eq!(view.health.status, Status::Healthy);
    assert_eq!(view.instances[0].last_seen, Some(world.now));
    assert_eq!(world.events[0].0, "twin.created");
}

#[test]
fn a_silent_instance_is_lost_by_a_wake_up_and_comes_back_with_its_next_word() {
    let mut world = World::new();
    world.speak("i1", "1").unwrap();
    for _ in 0..10 {
        world.pass(Duration::from_secs(30));
        world.speak("i1", "1").unwrap();
    }
    assert_eq!(view(&mut world).instances[0].presence, Presence::Up);
    world.pass(Duration::from_secs(61));
    let silent = view(&mut world);
    assert_eq!((silent.instances[0].presence, silent.health.status), (Presence::Lost, Status::Unhealthy));
    world.pass(Duration::from_secs(86_400));
    assert_eq!(view(&mut world).health.status, Status::Unhealthy, "a service that is down stays down");
    world.speak("i1", "1").unwrap();
    assert_eq!(view(&mut world).health.status, Status::Healthy);
    assert_eq!(world.count("twin.health.changed"), 3);
}

#[test]
fn after_a_reload_nobody_is_lost_before_a_full_timeout_was_listened() {
    let mut world = World::new();
    world.speak("i1", "1").unwrap();
    world.now = world.now.after(Duration::from_secs(3600));
    world.reload();
    world.pass(Duration::from_secs(59));
    assert_eq!(view(&mut world).instances[0].presence, Presence::Up);
    world.pass(Duration::from_secs(2));
    assert_eq!(view(&mut world).instances[0].presence, Presence::Lost);
}

#[test]
fn a_rollout_is_no_reason_for_worry() {
    let mut world = World::new();
    world.speak("old", "1").unwrap();
    world.pass(Duration::from_secs(30));
    world.speak("old", "1").unwrap();
    world.speak("new", "2").unwrap();
    for _ in 0..4 {
        world.pass(Duration::from_secs(30));
        world.speak("new", "2").unwrap();
    }
    let rolled = view(&mut world);
    assert_eq!((rolled.health.status, rolled.version.as_deref()), (Status::Healthy, Some("2")));
    for _ in 0..40 {
        world.pass(Duration::from_secs(30));
        world.speak("new", "2").unwrap();
    }
    assert_eq!(view(&mut world).instances.len(), 1, "the old one is forgotten");
}

#[test]
fn the_worst_instance_decides_health_and_a_farewell_is_no_loss() {
    let mut world = World::new();
    world.speak("i1", "1").unwrap();
    let health = Some(SelfHealth { status: Status::Degraded, reason: "disk at 95 %".into() });
    world.tell(Heartbeat { instance: "i2".into(), version: None, health }).unwrap();
    assert_eq!(view(&mut world).health.status, Status::Degraded);
    world.tell(Deregister { instance: "i2".into() }).unwrap();
    let view = view(&mut world);
    assert_eq!((view.health.status, view.instances.len()), (Status::Healthy, 1));
}

#[test]
fn more_instances_than_there_is_room_for_displace_lost_ones_only() {
    let mut world = World::new();
    for number in 0..200 {
        world.speak(&format!("instance-number-{number:04}-with-a-long-name"), "1").unwrap();
    }
    let full = view(&mut world).instances.len();
    assert!(full >= 30, "{full}");
    world.pass(Duration::from_secs(61));
    world.speak("newcomer", "2").unwrap();
    assert!(view(&mut world).instances.iter().any(|instance| instance.id == "newcomer"));
    world.speak(&"x".repeat(500), "2").unwrap();
}

#[test]
fn an_instance_that_there_is_no_room_for_is_refused_with_the_bound_and_its_telemetry_counted() {
    let full = || {
        let mut world = World::new();
        for number in 0..limits::INSTANCES_MAX {
            world.speak(&format!("i{number}"), "1").unwrap();
        }
        world
    };
    let health = Some(SelfHealth { status: Status::Unhealthy, reason: "no".into() });
    let beat = Heartbeat { instance: "late".into(), version: None, health };
    let applied = Some(Applied { version: 0, error: None });
    let report = Report {
        instance: Some("late".into()),
        feature: "limits".into(),
        reported: None,
        effective: None,
        applied,
        if_match: None,
    };
    let next = NextCommands { instance: "late".into(), limit: 1 };
    let refusals: [Rejection; 3] =
        [full().tell(beat).unwrap_err(), full().tell(report).unwrap_err(), full().tell(next).unwrap_err()];
    for refusal in refusals {
        let Rejection::Conflict { detail } = refusal else { panic!("{refusal}") };
        assert!(detail.contains("'late'") && detail.contains("64 instances"), "{detail}");
    }

    let mut world = full();
    let revision = world.revision;
    assert_eq!(view(&mut world).instances_beyond, 0);
    for late in ["late", "later", "late"] {
        world.speak(late, "1").unwrap();
    }
    let crowded = view(&mut world);
    assert_eq!((crowded.instances.len(), crowded.instances_beyond, crowded.revision), (64, 2, revision));
    world.tell(Deregister { instance: "i0".into() }).unwrap();
    world.speak("late", "1").unwrap();
    assert_eq!(view(&mut world).instances_beyond, 1, "one has a place now");
    world.now = world.now.after(Duration::from_secs(61));
    assert_eq!(view(&mut world).instances_beyond, 0, "the other is silent");
}

#[test]
fn a_removed_twin_refuses_everything_but_its_creation_and_signs_of_life() {
    let set = |patch: &str| SetAttributes { patch: json(patch), if_match: None };
    let returns: [fn(&mut World) -> bool; 3] = [
        |world| world.speak("i1", "1").is_ok(),
        |world| world.tell(Create::default()).is_ok(),
        |world| world.tell(Heartbeat { instance: "i2".into(), version: None, health: None }).is_ok(),
    ];
    let mut world = World::new();
    for (made, returns) in returns.into_iter().enumerate() {
        world.tell(set(r#"{"owner":"ada"}"#)).unwrap();
        world.tell(Remove { if_match: None }).unwrap();
        let revision = world.revision;
        assert_eq!(world.tell(set("{}")), Err(Rejection::Removed { revision }));
        assert_eq!(world.tell(GetView::default()).unwrap_err(), Rejection::Removed { revision });
        world.pass(Duration::from_secs(3600));
        assert!(returns(&mut world));
        let anew = view(&mut world);
        assert!(anew.revision > revision && anew.instances.len() <= 1);
        assert_eq!((anew.created_at, anew.attributes), (world.now, Json::empty()));
        assert_eq!(world.count("twin.created"), made + 2);
    }
}

#[test]
fn attributes_are_merged_under_the_revision_they_were_read_at() {
    let mut world = World::new();
    let set = |patch: &str, if_match| SetAttributes { patch: json(patch), if_match };
    let made = world.tell(set(r#"{"owner":"ada","tier":1}"#, Some(0))).unwrap().revision;
    assert_eq!(made, world.revision);
    assert_eq!(
        world.tell(set(r#"{"tier":2}"#, Some(made - 1))).unwrap_err(),
        Rejection::Precondition { expected: made - 1, found: made }
    );
    world.tell(set(r#"{"tier":null,"ünit":"größe"}"#, Some(made))).unwrap();
    assert_eq!(view(&mut world).attributes, json(r#"{"owner":"ada","ünit":"größe"}"#));
    let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(3000));
    assert!(matches!(world.tell(set(&large, None)), Err(Rejection::Limit { .. })));
    let mut terms = crate::twin::Terms::default();
    world.service.index(&mut terms);
    assert!(terms.as_slice().iter().any(|term| term == "attr.owner=ada"));
}

#[test]
fn alerts_of_many_operations_leave_room_for_that_of_the_service() {
    use crate::twin::service::observed::tests::{batch, span};
    let mut world = World::new();
    for second in 0..15 * 60_u64 {
        let mut batch = batch("1");
        for _ in 0..100 {
            span(&mut batch, "GET /", world.now, 10, second > 10 * 60);
        }
        // Few in number: the service as a whole does not notice.
        if second.is_multiple_of(10) {
            for operation in 0..16 {
                span(&mut batch, &format!("POST /{operation}"), world.now, 10, second > 120);
            }
        }
        world.tell(Ingest(Box::new(batch))).unwrap();
        world.now = world.now.after(Duration::from_secs(1));
        if second == 10 * 60 {
            let open = view(&mut world).alerts;
            assert!(open.len() == 9 && open.iter().all(|alert| alert.key.starts_with("errors POST")), "{open:?}");
        }
    }
    let open: Vec<_> = view(&mut world).alerts.into_iter().map(|alert| alert.key).collect();
    assert!(open.iter().any(|key| key == "errors"), "{open:?}");
}

#[test]
fn an_alert_opens_once_as_a_change_and_closes_with_health() {
    use crate::twin::service::observed::tests::{batch, span};
    let mut world = World::new();
    for second in 0..720_u64 {
        let mut batch = batch("1");
        let failing = (300..420).contains(&second);
        for place in 0..10 {
            span(&mut batch, "GET /orders", world.now, 10 + place, failing && place < 6);
        }
        world.tell(Ingest(Box::new(batch))).unwrap();
        world.now = world.now.after(Duration::from_secs(1));
        if second == 400 {
            let view = view(&mut world);
            assert_eq!(view.health.status, Status::Unhealthy);
            assert_eq!(view.alerts[0].key, "errors");
        }
        if second == 460 {
            let open: Vec<_> = view(&mut world).alerts.into_iter().map(|alert| alert.key).collect();
            assert_eq!(open, ["errors", "errors GET /orders (1)"]);
        }
    }
    assert_eq!((world.count("twin.alert.opened"), world.count("twin.alert.closed")), (2, 2));
    assert_eq!(view(&mut world).health.status, Status::Healthy);
    let behaviour = world.tell(GetView { behaviour: true }).unwrap().behaviour.unwrap();
    assert_eq!((behaviour.operations[0].count, behaviour.operations[0].errors), (7200, 720));
    assert!(world.revision < 14, "behaviour commits transitions only, made {}", world.revision);
}
