//! What the machine allows: no part of ours in here, each in at most 100 lines.

pub(crate) mod actix_send;
#[cfg(feature = "server")]
pub(crate) mod hyper_http;
pub(crate) mod lock;
#[cfg(feature = "server")]
pub(crate) mod otlp_decode;
pub(crate) mod sled_commit;
pub(crate) mod sled_read;
pub(crate) mod tokio_mpsc;
