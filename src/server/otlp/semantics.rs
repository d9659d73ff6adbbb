//! What attributes mean: the operation, whether it failed, and what was called.

use std::fmt::Write as _;

use opentelemetry_proto::tonic::common::v1::KeyValue;

use super::{integer, text};
use crate::model::telemetry::{Peer, PeerKind, SpanKind, Symbol, Symbols};

/// The attributes of one span or data point that matter here, found in one pass.
#[derive(Debug, Default)]
pub(super) struct Facts<'a> {
    http_method: &'a str,
    http_route: &'a str,
    url_template: &'a str,
    http_status: i64,
    rpc_status: Option<RpcStatus>,
    rpc_service: &'a str,
    rpc_method: &'a str,
    db_system: &'a str,
    db_namespace: &'a str,
    db_operation: &'a str,
    db_collection: &'a str,
    db_summary: &'a str,
    messaging_system: &'a str,
    messaging_operation: &'a str,
    messaging_type: &'a str,
    messaging_destination: &'a str,
    peer_service: &'a str,
    address: &'a str,
    port: i64,
    error: bool,
}

impl<'a> Facts<'a> {
    pub(super) fn of(attributes: &'a [KeyValue]) -> Self {
        let mut facts = Self::default();
        for attribute in attributes {
            facts.take(attribute);
        }
        facts
    }

    /// Of a data point. The older metrics of messaging name the operation themselves, and their points do not.
    pub(super) fn of_point(metric: &str, attributes: &'a [KeyValue]) -> Self {
        let mut facts = Self::of(attributes);
        if facts.messaging_operation.is_empty() {
            facts.messaging_operation = match metric {
                "messaging.publish.duration" => "publish",
                "messaging.receive.duration" => "receive",
                "messaging.process.duration" => "process",
                _ => facts.messaging_type,
            };
        }
        facts
    }

    fn take(&mut self, attribute: &'a KeyValue) {
        let number = || attribute.value.as_ref().and_then(integer).unwrap_or(0);
        let place = match attribute.key.as_str() {
            "http.request.method" | "http.method" => &mut self.http_method,
            "http.route" => &mut self.http_route,
            "url.template" => &mut self.url_template,
            "rpc.service" => &mut self.rpc_service,
            "rpc.method" => &mut self.rpc_method,
            "db.system.name" | "db.system" => &mut self.db_system,
            "db.namespace" | "db.name" => &mut self.db_namespace,
            "db.operation.name" | "db.operation" => &mut self.db_operation,
            "db.collection.name" | "db.sql.table" => &mut self.db_collection,
            "db.stored_procedure.name" if self.db_collection.is_empty() => &mut self.db_collection,
            "db.query.summary" => &mut self.db_summary,
            "messaging.system" => &mut self.messaging_system,
            "messaging.operation.name" | "messaging.operation" => &mut self.messaging_operation,
            "messaging.operation.type" => &mut self.messaging_type,
            "messaging.destination.template" | "messaging.destination" => &mut self.messaging_destination,
            "messaging.destination.name" if self.messaging_destination.is_empty() => &mut self.messaging_destination,
            "peer.service" | "service.peer.name" => &mut self.peer_service,
            "server.address" | "net.peer.name" => &mut self.address,
            "http.response.status_code" | "http.status_code" => {
                self.http_status = number();
                return;
            }
            "rpc.response.status_code" | "rpc.grpc.status_code" | "rpc.connect_rpc.error_code" => {
                let status = attribute.value.as_ref().and_then(integer).map(RpcStatus::numbered);
                self.rpc_status = status.or_else(|| text(attribute).map(RpcStatus::named)).or(self.rpc_status);
                return;
            }
            "server.port" | "net.peer.port" => {
                self.port = number();
                return;
            }
            "error.type" => {
                self.error = text(attribute).is_some_and(|kind| !kind.is_empty());
                return;
            }
            _ => return,
        };
        if let Some(value) = text(attribute) {
            *place = value;
        }
    }

    /// The operation, in the form in which spans and metrics of the same work agree; `name` if nothing says it.
    pub(super) fn operation(&self, name: &str, symbols: &mut Symbols, scratch: &mut String) -> Symbol {
        let pair = |scratch: &mut String, first: &str, between: char, second: &str| {
            scratch.clear();
            scratch.push_str(first);
            if !second.is_empty() {
                scratch.push(between);
                scratch.push_str(second);
            }
        };
        let route = if self.http_route.is_empty() { self.url_template } else { self.http_route };
        if !self.http_method.is_empty() && !route.is_empty() {
            pair(scratch, method(self.http_method), ' ', route);
        } else if !self.rpc_method.is_empty() {
            if self.rpc_service.is_empty() || self.rpc_method.contains('/') {
                return symbols.intern(self.rpc_method);
            }
            pair(scratch, self.rpc_service, '/', self.rpc_method);
        } else if !self.db_summary.is_empty() {
            return symbols.intern(self.db_summary);
        } else if !self.db_operation.is_empty() {
            pair(scratch, self.db_operation, ' ', self.db_collection);
        } else if !self.messaging_operation.is_empty() && !self.messaging_system.is_empty() {
            pair(scratch, self.messaging_operation, ' ', self.messaging_destination);
        } else if name.is_empty() {
            // A data point has no name of its own; that of a span would be this (semantic conventions: database spans).
            let target = if self.db_collection.is_empty() { self.db_namespace } else { self.db_collection };
            let target = if target.is_empty() { self.db_system } else { target };
            return symbols.intern(if target.is_empty() { method(self.http_method) } else { target });
        } else {
            return symbols.intern(name);
        }
        symbols.intern(scratch)
    }

    /// What was called; nothing for work that calls nobody.
    pub(super) fn peer(&self, kind: SpanKind, symbols: &mut Symbols, scratch: &mut String) -> Option<Peer> {
        match kind {
            SpanKind::Internal | SpanKind::Server => return None,
            SpanKind::Client | SpanKind::Producer | SpanKind::Consumer => {}
        }
        scratch.clear();
        let of = |first: &str, second: &str, scratch: &mut String| {
            scratch.push_str(first);
            if !second.is_empty() {
                scratch.push('/');
                scratch.push_str(second);
            }
        };
        let kind = if !self.peer_service.is_empty() {
            scratch.push_str(self.peer_service);
            PeerKind::Service
        } else if !self.db_system.is_empty() {
            of(self.db_system, self.db_namespace, scratch);
            PeerKind::Database
        } else if !self.messaging_system.is_empty() {
            of(self.messaging_system, self.messaging_destination, scratch);
            PeerKind::Messaging
        } else if !self.rpc_service.is_empty() {
            scratch.push_str(self.rpc_service);
            PeerKind::Service
        } else if let Some((service, _)) = self.rpc_method.rsplit_once('/') {
            scratch.push_str(service);
            PeerKind::Service
        } else if !self.address.is_empty() {
            scratch.push_str(self.address);
            if !matches!(self.port, 0 | 80 | 443) {
                write!(scratch, ":{}", self.port).expect("a String takes everything");
            }
            PeerKind::Address
        } else {
            return None;
        };
        Some(Peer { kind, name: symbols.intern(scratch) })
    }

    /// HTTP status class, 1 to 5, or 0.
    pub(super) fn status_class(&self) -> u8 {
        match self.http_status {
            100..=599 => u8::try_from(self.http_status / 100).unwrap_or(0),
            _ => 0,
        }
    }

    /// Whether the status of HTTP or RPC means an error on this side (semantic conventions: HTTP spans, Status; gRPC).
    pub(super) fn status_failed(&self, kind: SpanKind) -> bool {
        let http = self.status_class() == 5 || (kind == SpanKind::Client && self.status_class() == 4);
        http || match self.rpc_status {
            Some(RpcStatus::Refused) => kind == SpanKind::Client,
            Some(RpcStatus::Broken) => true,
            Some(RpcStatus::Ok) | None => false,
        }
    }

    /// The kind of the span that a data point of this metric stands for: an operation on messages that is asked of the
    /// broker and hands it none is a client's (semantic conventions: messaging spans, span kind).
    pub(super) fn kind(&self, metric: SpanKind) -> SpanKind {
        let asks = ["receive", "settle"].contains(&self.messaging_type);
        if metric == SpanKind::Producer && asks { SpanKind::Client } else { metric }
    }

    /// Whether a data point of this side counts failed operations.
    pub(super) fn failed(&self, kind: SpanKind) -> bool {
        self.error || self.status_failed(kind)
    }
}

/// What a status code of gRPC or Connect says of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RpcStatus {
    /// It went well, or the code is of a system whose codes are not known here: `error.type` tells.
    Ok,
    /// It failed for its caller; the server did as it should.
    Refused,
    /// It failed, and that is the server's error.
    Broken,
}

impl RpcStatus {
    fn numbered(code: i64) -> Self {
        match code {
            2 | 4 | 12..=15 => Self::Broken,
            1 | 3 | 5..=11 | 16 => Self::Refused,
            _ => Self::Ok,
        }
    }

    fn named(name: &str) -> Self {
        const BROKEN: [&str; 6] =
            ["UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"];
        const REFUSED: [&str; 11] = [
            "CANCELLED",
            "CANCELED",
            "INVALID_ARGUMENT",
            "NOT_FOUND",
            "ALREADY_EXISTS",
            "PERMISSION_DENIED",
            "RESOURCE_EXHAUSTED",
            "FAILED_PRECONDITION",
            "ABORTED",
            "OUT_OF_RANGE",
            "UNAUTHENTICATED",
        ];
        let is_in = |names: &[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
        if is_in(&BROKEN) {
            Self::Broken
        } else if is_in(&REFUSED) {
            Self::Refused
        } else {
            Self::Ok
        }
    }
}

/// `HTTP` stands for methods out of the ordinary, as in span names.
fn method(name: &str) -> &str {
    if name == "_OTHER" { "HTTP" } else { name }
}
