use proptest::prelude::*;

use super::*;
use crate::twin::service::{
    message::{
        AckCommand, Applied, CancelCommand, Create, DefineCommand, Deregister, Edit, Finish, FinishCommand, GetView,
        Heartbeat, NextCommands, Pace, PostCommand, Remove, Report, SelfHealth, SetAttributes, SetDesired, Target,
    },
    view::Status,
};

/// One thing that happens to a twin; numbers choose names from small sets so that things meet.
#[derive(Clone, Debug)]
enum Step {
    Speak(u8, u8),
    Heartbeat(u8, String),
    Deregister(u8),
    Attributes(String, usize),
    Desired(u8, String, usize),
    Report(u8, u8, String, usize, Option<u64>, bool),
    Post(u8, u8, usize, u64),
    Next(u8, u16),
    Ack(u64, u8),
    Finish(u64, u8, bool, usize),
    Cancel(u64),
    Define(u8, usize),
    Remove,
    Create,
    Pass(u64),
    /// The clock goes back.
    Back(u64),
    Reload,
}

fn step() -> impl Strategy<Value = Step> {
    let text = || "[a-zäß€/\\x00 ]{0,12}";
    prop_oneof![
        8 => (any::<u8>(), 0..4u8).prop_map(|(i, v)| Step::Speak(i, v)),
        4 => (any::<u8>(), text()).prop_map(|(i, text)| Step::Heartbeat(i, text)),
        1 => any::<u8>().prop_map(Step::Deregister),
        4 => (text(), 0..3000usize).prop_map(|(name, size)| Step::Attributes(name, size)),
        4 => (0..30u8, text(), 0..6000usize).prop_map(|(f, name, size)| Step::Desired(f, name, size)),
        6 => (any::<u8>(), 0..30u8, text(), 0..2000usize, proptest::option::of(0..200u64), any::<bool>())
            .prop_map(|(i, f, name, size, version, ok)| Step::Report(i, f, name, size, version, ok)),
        8 => (any::<u8>(), 0..4u8, 0..1500usize, 0..100_000u64).prop_map(|(n, t, size, ms)| Step::Post(n, t, size, ms)),
        8 => (any::<u8>(), 0..40u16).prop_map(|(i, limit)| Step::Next(i, limit)),
        4 => (0..300u64, any::<u8>()).prop_map(|(id, i)| Step::Ack(id, i)),
        6 => (0..300u64, any::<u8>(), any::<bool>(), 0..200usize).prop_map(|(id, i, ok, n)| Step::Finish(id, i, ok, n)),
        2 => (0..300u64).prop_map(Step::Cancel),
        2 => (any::<u8>(), 0..2000usize).prop_map(|(n, size)| Step::Define(n, size)),
        1 => Just(Step::Remove),
        2 => Just(Step::Create),
        4 => (0..200u64).prop_map(Step::Pass),
        1 => (0..7200u64).prop_map(Step::Back),
        2 => Just(Step::Reload),
    ]
}

fn document(name: &str, size: usize) -> Json {
    Json::from(serde_json::json!({ name: "x".repeat(size) }))
}

fn instance(number: u8) -> compact_str::CompactString {
    compact_str::format_compact!("{}-instance", "i".repeat(usize::from(number) / 2))
}

fn run(world: &mut World, step: &Step) {
    let ran = match step.clone() {
        Step::Speak(i, v) => world.speak(&instance(i), &"v".repeat(usize::from(v) * 20)).is_ok(),
        Step::Heartbeat(i, reason) => {
            let health = Some(SelfHealth { status: Status::Degraded, reason: reason.repeat(20).into() });
            world.tell(Heartbeat { instance: instance(i), version: None, health }).is_ok()
        }
        Step::Deregister(i) => world.tell(Deregister { instance: instance(i) }).is_ok(),
        Step::Attributes(name, size) => {
            world.tell(SetAttributes { patch: document(&name, size), if_match: None }).is_ok()
        }
        Step::Desired(f, name, size) => {
            let edit = Edit::Patch(document(&name, size));
            world.tell(SetDesired { feature: format!("feature-{f}").into(), edit, if_match: None }).is_ok()
        }
        Step::Report(i, f, name, size, version, ok) => world
            .tell(Report {
                instance: Some(instance(i)),
                feature: format!("feature-{f}").into(),
                reported: Some(Edit::Patch(document(&name, size))),
                effective: None,
                applied: version.map(|version| Applied { version, error: (!ok).then(|| "e".repeat(200).into()) }),
                if_match: None,
            })
            .is_ok(),
        Step::Post(n, t, size, ms) => {
            let target = match t {
                0 => Target::Any,
                1 => Target::Instance(instance(n)),
                2 | 3.. => Target::All,
            };
            world
                .tell(PostCommand {
                    name: format!("command-{n}").into(),
                    parameters: document("p", size),
                    target,
                    delivery_timeout_ms: Some(ms),
                    execution_timeout_ms: None,
                    pace: (t == 3).then_some(Pace { concurrency_max: 2, errors_max: 1 }),
                    if_match: None,
                })
                .is_ok()
        }
        Step::Next(i, limit) => world.tell(NextCommands { instance: instance(i), limit }).is_ok(),
        Step::Ack(id, i) => world.tell(AckCommand { id, instance: instance(i) }).is_ok(),
        Step::Finish(id, i, ok, n) => {
            let finish = if ok {
                Finish::Succeeded { result: Some(document("r", n)) }
            } else {
                Finish::Failed { error: "e".repeat(n).into() }
            };
            world.tell(FinishCommand { id, instance: instance(i), finish }).is_ok()
        }
        Step::Cancel(id) => world.tell(CancelCommand { id, if_match: None }).is_ok(),
        Step::Define(n, size) => {
            let schema = Some(Json::from(serde_json::json!({"title": "x".repeat(size)})));
            world.tell(DefineCommand { name: format!("command-{n}").into(), schema, if_match: None }).is_ok()
        }
        Step::Remove => world.tell(Remove::default()).is_ok(),
        Step::Create => world.tell(Create::default()).is_ok(),
        Step::Pass(seconds) => {
            world.pass(Duration::from_secs(seconds));
            true
        }
        Step::Back(seconds) => {
            world.now = world.now.before(Duration::from_secs(seconds));
            true
        }
        Step::Reload => {
            world.reload();
            true
        }
    };
    let exists = world.service.core.exists;
    assert_eq!(world.tell(GetView { behaviour: true }).is_ok(), exists, "{step:?} ({ran})");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// `World` checks bounds, round trips and the state machine of commands after every turn.
    #[test]
    fn whatever_is_told_the_state_stays_within_bounds(steps in proptest::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in &steps {
            run(&mut world, step);
        }
    }
}

#[test]
fn a_twin_filled_to_the_brim_fits_its_record() {
    let mut world = World::new();
    for number in 0..=255 {
        run(&mut world, &Step::Speak(number, 2));
        run(&mut world, &Step::Attributes(format!("a{number}"), 100));
        run(&mut world, &Step::Desired(number % 16, "d".into(), 250));
        run(&mut world, &Step::Report(number, number % 16, "d".into(), 1, Some(3), false));
        run(&mut world, &Step::Define(number, 80));
        run(&mut world, &Step::Post(number, 2, 40, 50_000));
        run(&mut world, &Step::Next(number, 1));
        run(&mut world, &Step::Heartbeat(number, "because".into()));
    }
    let bytes = to_bytes(&world.service).len();
    assert!((12 * 1024..=20 * 1024).contains(&bytes), "{bytes} bytes");
}
