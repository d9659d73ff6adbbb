//! What a node can tell of its cluster.

use std::{fmt::Error, time::Duration};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

use crate::{
    metrics::Sizes,
    runtime::{ClusterCounts, ClusterView, Runtime},
};

/// Every state of a node.
const STATES: [&str; 4] = ["joining", "up", "draining", "dead"];

/// Writes what there is; nothing for a node that shares its twins with nobody.
pub(super) fn encode(runtime: &Runtime, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    if let (Some(view), Some(counts)) = (runtime.cluster(), runtime.cluster_counts()) {
        gauges(&view, encoder)?;
        counters(&counts, encoder)?;
        let help = "Time until a call to another node was answered, waiting for an owner included";
        sizes("twin_cluster_forward_duration", help, Some(&Unit::Seconds), &counts.took_us, encoder)?;
    }
    let Some(shared) = runtime.store_stats().and_then(|stats| stats.shared) else { return Ok(()) };
    sizes("twin_store_batch_commits", "Commits of each batch", None, &shared.batches, encoder)?;
    let help = "Time until the servers answered a batch";
    sizes("twin_store_batch_duration", help, Some(&Unit::Seconds), &shared.took_us, encoder)?;
    gauge("twin_store_lag", "Messages that the servers' copy farthest behind lacked", shared.lag, encoder)?;
    gauge("twin_store_copies_behind", "Copies on the servers that were not current", shared.copies_behind, encoder)
}

fn gauges(view: &ClusterView, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let help = "Nodes, by state";
    let in_state = |state| wide(view.nodes.iter().filter(|node| node.state == state).count());
    let states = STATES.map(|state| ([("state", state)], in_state(state)));
    by(help, "twin_cluster_nodes", &states, encoder)?;
    let me = view.nodes.iter().find(|node| node.node == view.node);
    let slots = [
        ([("slots", "owned")], me.map_or(0, |me| me.owned.into())),
        ([("slots", "wished")], me.map_or(0, |me| me.wished.into())),
        ([("slots", "moving")], wide(view.moving)),
        ([("slots", "unowned")], view.unowned.into()),
        ([("slots", "misplaced")], view.misplaced.into()),
    ];
    let help = "Slots: owned by this node, wished to it, moving to or from it; of the cluster: unowned, misplaced";
    by(help, "twin_cluster_slots", &slots, encoder)?;
    gauge("twin_cluster_calls_waiting", "Calls to other nodes without an answer yet", wide(view.waiting), encoder)?;
    let left = ConstGauge::new(Duration::from_millis(view.lease_left_ms).as_secs_f64());
    let help = "How long this node may answer from memory if its lease is not renewed";
    left.encode(encoder.encode_descriptor("twin_cluster_lease_left", help, Some(&Unit::Seconds), left.metric_type())?)
}

fn counters(counts: &ClusterCounts, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let claims = [
        ([("result", "won")], counts.claims_won),
        ([("result", "lost")], counts.claims_lost),
        ([("result", "retried")], counts.claims_retried),
    ];
    counted("Claims of slots, by result", "twin_cluster_claims", &claims, encoder)?;
    let calls = [
        ([("calls", "forwarded")], counts.forwarded),
        ([("calls", "lost")], counts.lost),
        ([("calls", "expired")], counts.expired),
        ([("calls", "served")], counts.served),
        ([("calls", "sent_on")], counts.sent_on),
    ];
    let help = "Calls: forwarded to other nodes, of these lost or expired; of other nodes served or sent on";
    counted(help, "twin_cluster_calls", &calls, encoder)?;
    for (name, help, value) in [
        ("twin_cluster_handed_over", "Slots handed over to another node", counts.handed_over),
        ("twin_cluster_telemetry_lost", "Messages of telemetry that reached no owner", counts.telemetry_lost),
    ] {
        let counter = ConstCounter::new(value);
        counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
    }
    Ok(())
}

fn gauge(name: &str, help: &str, value: u64, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

fn by<L: EncodeLabelSet>(
    help: &str,
    name: &str,
    rows: &[(L, u64)],
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    rows.iter().try_for_each(|(label, value)| ConstGauge::new(*value).encode(family.encode_family(label)?))
}

fn counted<L: EncodeLabelSet>(
    help: &str,
    name: &str,
    rows: &[(L, u64)],
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    rows.iter().try_for_each(|(label, value)| ConstCounter::new(*value).encode(family.encode_family(label)?))
}

fn sizes(
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    sizes: &Sizes,
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), Error> {
    let scale = if unit.is_some() { 1e6 } else { 1.0 };
    sizes.encode(encoder.encode_descriptor(name, help, unit, MetricType::Histogram)?, scale)
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
