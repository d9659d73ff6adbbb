//! What a service twin shows: the JSON of the API, made from state and never stored.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::Json;
use crate::model::{Timestamp, telemetry::PeerKind};

/// How a twin, an instance or a part is; worst last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Nothing is known yet.
    #[default]
    Unknown,
    /// As it should be.
    Healthy,
    /// Works, but not as it should.
    Degraded,
    /// Does not work.
    Unhealthy,
}

impl Status {
    /// Each, the best first.
    pub const ALL: [Self; 4] = [Self::Unknown, Self::Healthy, Self::Degraded, Self::Unhealthy];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// One reason for a health other than healthy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// How bad this alone makes it.
    pub status: Status,
    /// What kind of reason: `instance.lost`, `alert`, `instance.health`, `feature.failed`, …
    pub code: CompactString,
    /// Of what: an instance, an alert's key, a feature.
    pub subject: CompactString,
}

/// Health with its reasons, worst first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthView {
    /// The worst of all.
    pub status: Status,
    /// Since when.
    pub since: Timestamp,
    /// Why; empty when healthy.
    pub reasons: Vec<Reason>,
}

/// The whole twin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceView {
    /// `namespace/name`.
    pub id: CompactString,
    /// Namespace.
    pub namespace: CompactString,
    /// Name.
    pub name: CompactString,
    /// Changes so far; the ETag.
    pub revision: u64,
    /// When it came into being.
    pub created_at: Timestamp,
    /// Version of the instance seen first last, if it states one.
    pub version: Option<CompactString>,
    /// `deployment.environment.name`.
    pub environment: Option<CompactString>,
    /// Health.
    pub health: HealthView,
    /// Whether every desired feature is as desired.
    pub in_sync: bool,
    /// Attributes.
    pub attributes: Json,
    /// Instances.
    pub instances: Vec<InstanceView>,
    /// How many more instances sent telemetry within the presence timeout, for which there is no room.
    #[serde(default)]
    pub instances_beyond: u64,
    /// Features.
    pub features: Vec<FeatureView>,
    /// Alerts that are open.
    pub alerts: Vec<AlertView>,
    /// Commands that have not ended.
    pub commands_live: u64,
    /// Names of commands with a schema.
    pub commands_defined: Vec<CompactString>,
    /// Behaviour, if asked for.
    pub behaviour: Option<BehaviourView>,
}

/// The attributes alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributesView {
    /// The twin's revision.
    pub revision: u64,
    /// The attributes.
    pub attributes: Json,
}

/// Whether an instance is heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// Heard of within the presence timeout.
    Up,
    /// Silent for longer.
    Lost,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceView {
    /// `service.instance.id`.
    pub id: CompactString,
    /// Its version.
    pub version: Option<CompactString>,
    /// Whether it is heard of.
    pub presence: Presence,
    /// Since when.
    pub presence_since: Timestamp,
    /// When it was first heard of.
    pub first_seen: Timestamp,
    /// When it was last heard of, as far as this activation knows.
    pub last_seen: Option<Timestamp>,
    /// What it says of itself.
    pub health: Status,
    /// Why.
    pub health_reason: CompactString,
}

/// One feature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureView {
    /// The twin's revision.
    pub revision: u64,
    /// Name.
    pub name: CompactString,
    /// What it shall be.
    pub desired: Option<Json>,
    /// The revision that set it so.
    pub desired_version: u64,
    /// What the service says it is.
    pub reported: Option<Json>,
    /// The revision that set it so.
    pub reported_version: u64,
    /// What is in force.
    pub effective: Option<Json>,
    /// The desired fields that are not so; absent when there are none.
    pub delta: Option<Json>,
    /// No delta, and nobody who speaks of versions is behind or has failed.
    pub in_sync: bool,
    /// Since when it is not in sync.
    pub diverged_since: Option<Timestamp>,
    /// What each instance did with a desired version.
    pub acknowledgements: Vec<AcknowledgementView>,
}

/// What one instance did with a desired version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcknowledgementView {
    /// The instance.
    pub instance: CompactString,
    /// The desired version it spoke of last.
    pub version: u64,
    /// Why it could not be applied.
    pub error: Option<CompactString>,
    /// When it said so.
    pub at: Timestamp,
}

/// An open alert.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlertView {
    /// What deviates: `errors GET /orders`.
    pub key: CompactString,
    /// How bad.
    pub status: Status,
    /// Since when.
    pub opened_at: Timestamp,
    /// The value that opened it.
    pub value: f64,
    /// What was expected.
    pub expected: f64,
}

/// Where a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommandState {
    /// Waits to be collected.
    Queued,
    /// Collected by an instance.
    Delivered,
    /// Begun by an instance.
    Acknowledged,
    /// Done.
    Succeeded,
    /// Not done.
    Failed,
    /// A timeout passed.
    Expired,
    /// Taken back.
    Cancelled,
}

impl CommandState {
    /// Whether it has ended.
    pub const fn is_final(self) -> bool {
        match self {
            Self::Queued | Self::Delivered | Self::Acknowledged => false,
            Self::Succeeded | Self::Failed | Self::Expired | Self::Cancelled => true,
        }
    }

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Delivered => "delivered",
            Self::Acknowledged => "acknowledged",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A command handed to an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryView {
    /// The command's id.
    pub id: u64,
    /// Its name.
    pub name: CompactString,
    /// Its parameters.
    pub parameters: Json,
    /// Until when it must be finished.
    pub finish_by: Timestamp,
}

/// One command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandView {
    /// Its id within the twin.
    pub id: u64,
    /// Its name.
    pub name: CompactString,
    /// Its parameters; dropped once it has ended.
    pub parameters: Option<Json>,
    /// Where it is as a whole.
    pub state: CommandState,
    /// When it was posted.
    pub posted_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// What came of it last.
    pub result: Option<Json>,
    /// Why it failed.
    pub error: Option<CompactString>,
    /// Where it is at each instance that has to do with it.
    pub runs: Vec<RunView>,
}

/// A command at one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunView {
    /// The instance; absent if it is not known any more.
    pub instance: Option<CompactString>,
    /// Where it is.
    pub state: CommandState,
    /// Until when it must move on, if it has not ended.
    pub due_at: Option<Timestamp>,
}

/// A page of commands, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandsView {
    /// The commands.
    pub commands: Vec<CommandView>,
    /// Where to go on: `before` of the next page.
    pub next: Option<u64>,
}

/// What the service does, as observed. A gap is a gap, never a zero.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BehaviourView {
    /// When it was last saved; what came later is lost by a crash.
    pub saved_at: Option<Timestamp>,
    /// Samples folded since the twin came into being.
    pub samples: u64,
    /// Rate, errors, duration per operation and version.
    pub operations: Vec<OperationView>,
    /// Every other metric.
    pub series: Vec<SeriesView>,
    /// What it calls.
    pub edges: Vec<EdgeView>,
    /// Log records by severity: trace, debug, info, warn, error, fatal.
    pub logs: [u64; 6],
    /// The newest errors, newest first.
    pub errors: Vec<ErrorView>,
    /// What is expected per key series.
    pub baselines: Vec<BaselineView>,
}

/// How measurements are distributed, within 1 %.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DistributionView {
    /// How many there are.
    pub count: u64,
    /// Half of them are not larger.
    pub p50: Option<f64>,
    /// 90 %.
    pub p90: Option<f64>,
    /// 95 %.
    pub p95: Option<f64>,
    /// 99 %.
    pub p99: Option<f64>,
    /// The largest.
    pub max: Option<f64>,
}

/// Rate, errors and duration of one operation at one version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OperationView {
    /// The operation; `_other` for those that did not fit.
    pub operation: CompactString,
    /// The version.
    pub version: CompactString,
    /// Which side: `server`, `client`, `producer`, `consumer`, `internal`.
    pub kind: CompactString,
    /// `spans` or `metrics`: where the numbers come from.
    pub source: CompactString,
    /// How often, in total.
    pub count: u64,
    /// How often it failed, in total.
    pub errors: u64,
    /// How often per second, over the last five minutes.
    pub rate: f64,
    /// Share that failed, over the last five minutes.
    pub error_ratio: f64,
    /// Sum of durations, in seconds.
    pub sum_s: f64,
    /// Durations of the last five to ten minutes, in seconds; absent after silence.
    pub p50_s: Option<f64>,
    /// 90 %.
    pub p90_s: Option<f64>,
    /// 95 %.
    pub p95_s: Option<f64>,
    /// 99 %.
    pub p99_s: Option<f64>,
    /// Largest.
    pub max_s: Option<f64>,
    /// Durations since the twin came into being, in seconds.
    pub ever: DistributionView,
    /// When it was last seen.
    pub last_at: Timestamp,
}

/// One metric at several resolutions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SeriesView {
    /// The metric, with the attributes that tell series apart; `_other` for what did not fit.
    pub name: CompactString,
    /// Unit as written.
    pub unit: CompactString,
    /// `gauge` (levels), `counter` (per second) or `histogram` (means).
    pub shape: CompactString,
    /// The newest value: a level; for counters the total, for histograms the number of measurements.
    pub last: f64,
    /// For histograms: 50 % of the last five to ten minutes; absent after silence.
    pub p50: Option<f64>,
    /// For histograms: 99 %.
    pub p99: Option<f64>,
    /// For histograms: since the twin came into being.
    pub ever: Option<DistributionView>,
    /// When.
    pub last_at: Timestamp,
    /// The history, finest first.
    pub tiers: Vec<TierView>,
}

/// One resolution.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TierView {
    /// Width of a bin, in seconds.
    pub width_s: u64,
    /// Bins that hold something: start, mean or rate, least, greatest.
    pub bins: Vec<BinView>,
}

/// One bin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BinView {
    /// Its start.
    pub start: Timestamp,
    /// Mean of levels, or rate per second.
    pub value: f64,
    /// Least.
    pub min: f64,
    /// Greatest.
    pub max: f64,
}

/// A dependency.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EdgeView {
    /// What is called; `_other` for those that did not fit.
    pub peer: CompactString,
    /// What kind of thing it is.
    pub kind: PeerKind,
    /// How often, in total.
    pub count: u64,
    /// How often it failed.
    pub errors: u64,
    /// Mean duration, in seconds.
    pub mean_s: f64,
    /// When it was last called.
    pub last_at: Timestamp,
}

/// A logged error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorView {
    /// When.
    pub at: Timestamp,
    /// `exception.type`.
    pub exception: Option<CompactString>,
    /// The message.
    pub body: CompactString,
    /// The trace, in hex.
    pub trace_id: Option<CompactString>,
}

/// What is expected of a key series.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BaselineView {
    /// Which: `rate`, `errors`, `duration` of the service, `errors POST /orders (2.0.0)` of one operation,
    /// `series process.memory.usage` of any other metric.
    pub key: CompactString,
    /// The newest value.
    pub value: f64,
    /// What the exponentially weighted mean expects.
    pub expected: f64,
    /// What was at this time last week, or yesterday while the twin is younger than that.
    pub seasonal: Option<f64>,
    /// Distance in standard deviations.
    pub deviation: f64,
}
