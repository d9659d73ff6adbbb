//! How a connection of HTTP is served, by a node's port and by a service's own door: one set of bounds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::{
    HeaderMap,
    header::{CONNECTION, HeaderName, HeaderValue, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE},
};
use hyper_util::{
    rt::{TokioExecutor, TokioTimer},
    server::conn::auto,
};

/// Streams of one HTTP/2 connection at once.
const STREAMS_MAX: u32 = 256;
/// Most that is kept of an answer for an HTTP/2 stream whose peer does not read it, in bytes.
const SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// How often an HTTP/2 connection without traffic is asked whether it lives.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(30);
/// Pause after a failed accept, such as for want of file descriptors.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// HTTP/1.1 and HTTP/2 on one port; a head may take so long.
pub(crate) fn builder(head_timeout: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .pipeline_flush(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .keep_alive_interval(PING_EVERY)
        .adaptive_window(true);
    builder
}

/// Between two ends only, and not for whoever is behind (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Takes out what was meant for this end alone. That trailers are understood stays, since we hand them on.
pub(crate) fn strip(headers: &mut HeaderMap) {
    let speaks_of_trailers = headers.get(TE).is_some_and(|te| te == "trailers");
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    if speaks_of_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Whether a connection has brought a request.
#[derive(Clone, Default)]
pub(crate) struct Spoke(Arc<AtomicBool>);

impl Spoke {
    /// It has.
    pub(crate) fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Serves a connection to its end; `None` if it brought nothing within `silence_max`. The head's timeout starts once
    /// the protocol is known, and a peer may never say enough to know it.
    pub(crate) async fn or_close<F: Future>(&self, served: F, silence_max: Duration) -> Option<F::Output> {
        let mut served = std::pin::pin!(served);
        tokio::select! {
            ended = &mut served => return Some(ended),
            () = tokio::time::sleep(silence_max) => {}
        }
        if self.0.load(Ordering::Relaxed) { Some(served.await) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_for_this_end_alone_goes_no_further() {
        let pairs = [
            ("connection", "close, x-own"),
            ("x-own", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "trailers"),
            ("content-type", "text/plain"),
        ];
        let mut headers: HeaderMap =
            pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect();
        strip(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-type", "te"]);
    }
}
