//! Bounds of a service twin, chosen so that its state stays below 20 KiB whatever it is told: what is left of the
//! record's 32 KiB holds outbox, idempotency ring and journal tail, and what is kept free for its wake-ups.

use std::time::Duration;

/// Largest attributes document, in bytes of JSON.
pub const ATTRIBUTES_BYTES_MAX: usize = 2048;
/// Most features.
pub const FEATURES_MAX: usize = 16;
/// Most bytes of all features together, as stored.
pub const FEATURES_BYTES_MAX: usize = 4608;
/// Longest name of a feature or command, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Most instances.
pub const INSTANCES_MAX: usize = 64;
/// Most bytes of all instances together, as stored.
pub const INSTANCES_BYTES_MAX: usize = 4608;
/// Most instances counted that there is no room for.
pub const INSTANCES_BEYOND_MAX: usize = 256;
/// Longest instance id kept as it is; a longer one is cut and carries its hash.
pub const INSTANCE_ID_BYTES_MAX: usize = 64;
/// Longest version, in bytes; cut.
pub const VERSION_BYTES_MAX: usize = 32;
/// Longest environment, in bytes; cut.
pub const ENVIRONMENT_BYTES_MAX: usize = 48;
/// Longest reason or error of an instance, in bytes; cut.
pub const REASON_BYTES_MAX: usize = 64;
/// Most commands that have not ended.
pub const COMMANDS_LIVE_MAX: usize = 32;
/// Most ended commands kept.
pub const COMMANDS_ENDED_MAX: usize = 16;
/// Most bytes of all commands together, as stored, results of live ones included in advance.
pub const COMMANDS_BYTES_MAX: usize = 5 * 1024;
/// Largest parameters of a command, in bytes of JSON.
pub const PARAMETERS_BYTES_MAX: usize = 1024;
/// Largest result of a command, in bytes of JSON, and longest error; a larger result belongs elsewhere, named here.
pub const RESULT_BYTES_MAX: usize = 128;
/// Most commands with a schema.
pub const SCHEMAS_MAX: usize = 16;
/// Most bytes of all schemas together.
pub const SCHEMAS_BYTES_MAX: usize = 1024;
/// Most open alerts.
pub const ALERTS_MAX: usize = 12;
/// Most reasons of a health.
pub const REASONS_MAX: usize = 8;
/// Longest subject of a reason and key of an alert, in bytes; cut.
pub const SUBJECT_BYTES_MAX: usize = 64;

/// Longest timeout of a command.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
