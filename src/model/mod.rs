//! Words that two layers exchange and neither owns; every value is valid by construction.
//!
//! Nothing here does anything: no clock is read, no byte leaves. Start at [`Key`] (who),
//! [`Header`] (on whose behalf and until when) and [`Outcome`] (what is known afterwards).

pub mod envelope;
pub mod grant;
pub mod id;
pub mod limits;
pub mod outcome;
pub mod rights;
pub mod scope;
pub mod telemetry;
pub mod time;

pub use envelope::{Consistency, Header, Lane, Principal, RequestKey, Step, TraceParent};
pub use id::{InvalidKey, Key, ServiceId};
pub use outcome::{Outcome, Rider, Sealed};
pub use rights::TokenRights;
pub use time::{Clock, SystemClock, Timestamp};
