//! What runtime and store can tell of themselves, as metrics.

mod cluster;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use crate::runtime::{Counts, Runtime};

/// A number of a kind's shards: name, meaning, how to read it.
type Row = (&'static str, &'static str, fn(&Counts) -> u64);

const GAUGES: [Row; 2] = [
    ("twin_resident", "Twins in memory, by kind", |counts| counts.resident),
    ("twin_resident_bytes", "Bytes of twins in memory, by kind, estimated", |counts| counts.resident_bytes),
];

const COUNTERS: [Row; 17] = [
    ("twin_activations", "Twins brought to memory, by kind", |counts| counts.activations),
    ("twin_activation_failures", "Activations that failed, by kind", |counts| counts.activation_failures),
    (
        "twin_records_backwards",
        "Activations refused because the record was older than one seen before, by kind",
        |counts| counts.backwards,
    ),
    ("twin_passivations", "Twins that left memory, by kind", |counts| counts.passivations),
    ("twin_turns", "Turns, by kind", |counts| counts.turns),
    ("twin_inline_turns", "Turns that ran on their caller's thread, by kind", |counts| counts.inline_turns),
    ("twin_rejections", "Turns that ended in a refusal, by kind", |counts| counts.rejections),
    ("twin_panics", "Panics of a twin's code, each of which ended an activation, by kind", |counts| counts.panics),
    ("twin_shed", "Messages refused for want of room, by kind", |counts| counts.shed),
    ("twin_expired", "Messages whose deadline passed before their turn, by kind", |counts| counts.expired),
    ("twin_commits", "Commits handed to the store, by kind", |counts| counts.commits),
    ("twin_commit_failures", "Commits that did not end well, by kind", |counts| counts.commit_failures),
    ("twin_commits_fenced", "Commits refused because another owns the twin, by kind", |counts| counts.commits_fenced),
    ("twin_commits_unknown", "Commits whose outcome nobody knows, by kind", |counts| counts.commits_unknown),
    ("twin_facts_dropped", "Observations whose facts did not fit the record, by kind", |counts| counts.facts_dropped),
    (
        "twin_delivery_failures",
        "Deliveries of promised messages that failed and are tried again, by kind of the sender",
        |counts| counts.delivery_failures,
    ),
    (
        "twin_effects_dropped",
        "Promised messages that their target refused as too old to tell whether it had them, by kind of the sender",
        |counts| counts.effects_dropped,
    ),
];

/// Reads runtime and store at each scrape.
#[derive(Debug)]
struct Vitals(Runtime);

/// Adds the numbers of `runtime` and its store.
pub fn register(runtime: &Runtime, registry: &mut Registry) {
    registry.register_collector(Box::new(Vitals(runtime.clone())));
}

impl Collector for Vitals {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let kinds = self.0.counts();
        for (name, meaning, read) in GAUGES {
            let kind_of_metric = ConstGauge::new(0_u64).metric_type();
            let mut family = encoder.encode_descriptor(name, meaning, None, kind_of_metric)?;
            for (kind, counts) in &kinds {
                ConstGauge::new(read(counts)).encode(family.encode_family(&[("kind", *kind)])?)?;
            }
        }
        for (name, meaning, read) in COUNTERS {
            let kind_of_metric = ConstCounter::new(0_u64).metric_type();
            let mut family = encoder.encode_descriptor(name, meaning, None, kind_of_metric)?;
            for (kind, counts) in &kinds {
                ConstCounter::new(read(counts)).encode(family.encode_family(&[("kind", *kind)])?)?;
            }
        }
        cluster::encode(&self.0, &mut encoder)?;
        let Some(store) = self.0.store_stats() else { return Ok(()) };
        let gauges = [
            ("twin_store_bytes", "Bytes of the store", store.bytes),
            ("twin_store_waiting", "Commits that wait for the store", store.waiting),
        ];
        for (name, meaning, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, meaning, None, gauge.metric_type())?)?;
        }
        let failed = ConstGauge::new(u64::from(self.0.store_failed().is_some()));
        let help = "1 once the store writes nothing any more, for want of room or a failing disk";
        failed.encode(encoder.encode_descriptor("twin_store_failed", help, None, failed.metric_type())?)?;
        let longest = ConstGauge::new(store.flush_longest.as_secs_f64());
        let (help, unit) = ("The longest flush since start, syncing included", Some(&Unit::Seconds));
        longest.encode(encoder.encode_descriptor("twin_store_flush_longest", help, unit, longest.metric_type())?)?;
        let counters = [
            ("twin_store_commits", "Commits the store made", store.commits),
            ("twin_store_flushes", "Flushes of the store", store.flushes),
        ];
        for (name, meaning, value) in counters {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, meaning, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}
