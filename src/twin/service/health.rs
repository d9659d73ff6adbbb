//! Health: judged from instances, alerts and features; the worst wins.

use compact_str::CompactString;

use super::{
    Change, Core,
    core::Health,
    instance::Instance,
    limits::{REASONS_MAX, SUBJECT_BYTES_MAX},
    settings::Settings,
    view::{Presence, Reason, Status},
};
use crate::model::telemetry::cut;

/// The change that brings the recorded health up to date; `None` if it is.
pub(super) fn transition(core: &Core) -> Option<Change> {
    let Health { status, reasons, .. } = judge(core);
    (status != core.health.status || reasons != core.health.reasons).then(|| Change::Health {
        from: core.health.status,
        status,
        reasons,
    })
}

/// Health as it follows from the state.
fn judge(core: &Core) -> Health {
    let mut reasons: Vec<Reason> = instances(core).chain(alerts(core)).chain(features(core)).collect();
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.status));
    reasons.truncate(REASONS_MAX);
    let calm = if core.instances.is_empty() { Status::Unknown } else { Status::Healthy };
    let status = reasons.first().map_or(calm, |worst| worst.status.max(calm));
    Health { status, since: core.health.since, reasons }
}

fn instances(core: &Core) -> impl Iterator<Item = Reason> {
    let any_up = core.instances.iter().any(Instance::is_up);
    core.instances.iter().filter_map(move |instance| match instance.presence {
        Presence::Lost if !any_up => Some(reason(Status::Unhealthy, "instance.lost", &instance.id)),
        Presence::Lost if is_replaced(core, instance) => None,
        Presence::Lost => Some(reason(Status::Degraded, "instance.lost", &instance.id)),
        Presence::Up => {
            (instance.health > Status::Healthy).then(|| reason(instance.health, "instance.health", &instance.id))
        }
    })
}

/// Whether an instance that fell silent has a successor: one that came shortly before or after. Rollouts do that, and
/// nobody should be woken by them.
fn is_replaced(core: &Core, lost: &Instance) -> bool {
    let from = lost.presence_since.before(3 * Settings::chosen().presence_timeout());
    core.instances.iter().any(|other| other.is_up() && other.first_seen >= from && other.first_seen > lost.first_seen)
}

fn alerts(core: &Core) -> impl Iterator<Item = Reason> {
    core.alerts.iter().map(|alert| reason(alert.status, "alert", &alert.key))
}

fn features(core: &Core) -> impl Iterator<Item = Reason> {
    core.features
        .iter()
        .filter(|feature| feature.has_failed(core))
        .map(|feature| reason(Status::Degraded, "feature.failed", &feature.name))
}

fn reason(status: Status, code: &str, subject: &str) -> Reason {
    Reason { status, code: code.into(), subject: CompactString::new(cut(subject, SUBJECT_BYTES_MAX)) }
}
