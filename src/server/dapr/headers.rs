//! What stands beside a call and its answer, between HTTP and gRPC: headers become metadata and back, under the names
//! that Dapr gives them.

use axum::http::{HeaderMap, HeaderName, header};
use tonic::metadata::MetadataMap;

use crate::wire;

/// Headers of HTTP that are `dapr-…` as metadata, so that they are not taken for those of the call that carries them.
const RENAMED: [&str; 23] = [
    "accept",
    "accept-charset",
    "accept-language",
    "accept-ranges",
    "cache-control",
    "content-type",
    "cookie",
    "date",
    "expect",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-schedule-tag-match",
    "if-unmodified-since",
    "max-forwards",
    "origin",
    "pragma",
    "referer",
    "via",
    "warning",
    "accept-encoding",
];

/// Headers as metadata.
pub(super) fn to_metadata(headers: &HeaderMap) -> MetadataMap {
    let mut metadata = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers.iter().filter(|(name, _)| !is_of_the_carrier(name)) {
        let renamed = RENAMED.contains(&name.as_str()).then(|| format!("dapr-{name}").parse().ok()).flatten();
        metadata.append(renamed.unwrap_or_else(|| name.clone()), value.clone());
    }
    MetadataMap::from_headers(metadata)
}

/// Metadata as headers: what is binary is none, and the content's type is not that of the call.
pub(super) fn to_headers(metadata: MetadataMap) -> HeaderMap {
    let mut headers = of_grpc(metadata);
    let binary: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().ends_with("-bin")).cloned().collect();
    for name in binary {
        headers.remove(name);
    }
    headers
}

/// The same with what is binary, for where it becomes metadata again.
pub(super) fn of_grpc(metadata: MetadataMap) -> HeaderMap {
    let mut headers = metadata.into_headers();
    wire::strip(&mut headers);
    let carried: Vec<HeaderName> = headers.keys().filter(|name| is_of_the_carrier(name)).cloned().collect();
    for name in carried.iter().chain(&[header::CONTENT_TYPE]) {
        headers.remove(name);
    }
    headers
}

/// Whether it is about the bytes of one call alone.
fn is_of_the_carrier(name: &HeaderName) -> bool {
    *name == header::CONTENT_LENGTH || *name == header::TE || name.as_str().starts_with("grpc-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn headers_are_metadata_under_names_that_are_not_those_of_the_call_that_carries_them() {
        let headers = map(&[("content-type", "a/b"), ("content-length", "1"), ("x-own", "1"), ("grpc-status", "0")]);
        assert_eq!(names(&to_metadata(&headers).into_headers()), ["dapr-content-type", "x-own"]);
    }

    #[test]
    fn of_metadata_what_is_about_its_call_and_what_is_binary_is_no_header() {
        let all = [("content-type", "application/grpc"), ("te", "x"), ("grpc-timeout", "1S"), ("x-own", "1")];
        let metadata = || MetadataMap::from_headers(map(&[&all[..], &[("blob-bin", "AA")]].concat()));
        assert_eq!(names(&to_headers(metadata())), ["x-own"]);
        assert_eq!(names(&of_grpc(metadata())), ["blob-bin", "x-own"]);
    }
}
