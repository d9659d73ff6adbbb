use super::*;
use crate::twin::service::{
    message::{Applied, Edit, GetFeature, GetView, Report, SetDesired},
    view::{FeatureView, Status},
};

fn desire(world: &mut World, text: &str) -> u64 {
    let edit = Edit::Patch(json(text));
    world.tell(SetDesired { feature: "config".into(), edit, if_match: None }).unwrap();
    feature(world).desired_version
}

fn report(instance: &str, reported: Option<&str>, applied: Option<Applied>) -> Report {
    Report {
        instance: Some(instance.into()),
        feature: "config".into(),
        reported: reported.map(|text| Edit::Patch(json(text))),
        effective: None,
        applied,
        if_match: None,
    }
}

fn feature(world: &mut World) -> FeatureView {
    world.tell(GetFeature { feature: "config".into() }).unwrap()
}

#[test]
fn what_is_desired_and_not_reported_is_the_delta() {
    let mut world = World::new();
    desire(&mut world, r#"{"a":1,"b":{"c":2}}"#);
    assert!(!feature(&mut world).in_sync);
    world.tell(report("i1", Some(r#"{"a":1,"b":{"c":3},"own":true}"#), None)).unwrap();
    assert_eq!(feature(&mut world).delta, Some(json(r#"{"b":{"c":2}}"#)));
    world.tell(report("i1", Some(r#"{"b":{"c":2}}"#), None)).unwrap();
    let synced = feature(&mut world);
    assert_eq!((synced.in_sync, synced.delta, synced.diverged_since), (true, None, None));
    assert_eq!(world.count("twin.insync.changed"), 2);
    assert_eq!(synced.desired, Some(json(r#"{"a":1,"b":{"c":2}}"#)), "desired is not cleared on a match");
}

#[test]
fn every_instance_that_speaks_of_versions_must_have_followed() {
    let mut world = World::new();
    let version = desire(&mut world, r#"{"a":1}"#);
    let done = |version| Some(Applied { version, error: None });
    world.tell(report("i1", None, done(version))).unwrap();
    world.tell(report("i2", None, done(version))).unwrap();
    assert!(feature(&mut world).in_sync);
    let version = desire(&mut world, r#"{"a":2}"#);
    world.tell(report("i1", None, done(version))).unwrap();
    assert!(!feature(&mut world).in_sync, "i2 is behind");
    let failed = Some(Applied { version, error: Some("no such zone".into()) });
    world.tell(report("i2", None, failed)).unwrap();
    assert_eq!(world.tell(GetView::default()).unwrap().health.status, Status::Degraded);
    world.tell(report("i2", None, done(version))).unwrap();
    assert!(feature(&mut world).in_sync);
    assert!(world.tell(report("i1", None, done(version + 9))).is_err(), "nobody applies what was never desired");
}

#[test]
fn a_write_that_changes_nothing_makes_no_revision() {
    let mut world = World::new();
    desire(&mut world, r#"{"a":1}"#);
    let revision = world.revision;
    desire(&mut world, r#"{"a":1}"#);
    assert_eq!(world.revision, revision);
}

#[test]
fn features_are_refused_beyond_their_bounds() {
    let mut world = World::new();
    let set =
        |name: String, text: &str| SetDesired { feature: name.into(), edit: Edit::Replace(json(text)), if_match: None };
    for number in 0..limits::FEATURES_MAX {
        world.tell(set(format!("f{number}"), "{}")).unwrap();
    }
    assert!(matches!(world.tell(set("one-more".into(), "{}")), Err(Rejection::Limit { .. })));
    let large = format!("\"{}\"", "x".repeat(limits::FEATURES_BYTES_MAX));
    assert!(matches!(world.tell(set("f1".into(), &large)), Err(Rejection::Limit { .. })));
    assert!(matches!(world.tell(set("a/b".into(), "1")), Err(Rejection::Invalid { .. })));
}
