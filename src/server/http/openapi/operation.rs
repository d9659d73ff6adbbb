//! What is said of an operation, and short ways to say it.

use super::notation::Field;
use crate::server::problem::Code;

/// One operation.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    /// Parameters in the query.
    pub(super) query: &'static [Field],
    pub(super) body: Option<Body>,
    pub(super) status: u16,
    pub(super) answer: Answer,
    pub(super) kind: Kind,
    /// Why it answers 503 with text, if it does.
    pub(super) otherwise: Option<&'static str>,
    /// Problems that those of its kind do not have …
    pub(super) refusals: &'static [Code],
    /// … and those of its kind that it does not have.
    pub(super) never: &'static [Code],
}

/// What an operation takes.
#[derive(Clone, Copy)]
pub(super) struct Body {
    /// Media types.
    pub(super) media: &'static [&'static str],
    /// Type of the document, and its meaning.
    pub(super) document: (&'static str, &'static str),
    pub(super) may_be_absent: bool,
    /// A document that is fine.
    pub(super) example: &'static str,
}

/// What an operation answers.
#[derive(Clone, Copy)]
pub(super) enum Answer {
    /// A document of this type.
    Json(&'static str),
    /// Server-sent events: type and schema of each.
    Stream(&'static [(&'static str, &'static str)]),
    /// Nothing but its status.
    Nothing,
    /// Text of a media type, with its meaning.
    Text(&'static str, &'static str),
    /// OTLP's answer, in the encoding of the request.
    Otlp(&'static str),
}

/// Which headers an operation understands, and which problems it may have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Takes no key.
    Open,
    /// No more than every request.
    Plain,
    /// Reads; the answer has an ETag, always or sometimes.
    Read { is_tagged: bool },
    /// Reads; the answer has an ETag for later writes, and more than that says may change.
    Look,
    /// Writes, whatever the twin's revision is.
    Note,
    /// The same, and the answer has no ETag.
    Keyed,
    /// Writes, if the twin has the revision that the caller expects.
    Write,
    /// Goes on until one of both sides ends it.
    Stream,
    /// Takes telemetry.
    Telemetry,
}

const JSON: &[&str] = &["application/json"];
const PATCH: &[&str] = &["application/merge-patch+json", "application/json"];
pub(super) const OTLP: &[&str] = &["application/json", "application/x-protobuf"];

pub(super) const fn read(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    answer: &'static str,
) -> Operation {
    let (answer, kind) = (Answer::Json(answer), Kind::Read { is_tagged: true });
    let (query, refusals, never): (&[Field], &[Code], &[Code]) = (&[], &[], &[]);
    let (method, status, body, otherwise) = ("get", 200, None, None);
    Operation { method, path, id, summary, query, body, status, answer, kind, otherwise, refusals, never }
}

pub(super) const fn plain(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    answer: &'static str,
) -> Operation {
    Operation { kind: Kind::Plain, ..read(path, id, summary, answer) }
}

pub(super) const fn write(
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
) -> Operation {
    Operation { method, kind: Kind::Write, ..read(path, id, summary, "Written") }
}

/// One that answers with its status alone.
pub(super) const fn silent(
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
) -> Operation {
    Operation { method, answer: Answer::Nothing, status: 204, ..plain(path, id, summary, "") }
}

pub(super) const fn note(
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
) -> Operation {
    Operation { kind: Kind::Note, ..write(method, path, id, summary) }
}

pub(super) const fn stream(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    events: &'static [(&'static str, &'static str)],
) -> Operation {
    Operation { answer: Answer::Stream(events), kind: Kind::Stream, ..read(path, id, summary, "") }
}

pub(super) const fn telemetry(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    answer: &'static str,
) -> Operation {
    let operation = Operation { method: "post", answer: Answer::Otlp(answer), ..read(path, id, summary, "") };
    Operation { kind: Kind::Telemetry, ..operation }
}

pub(super) const fn text(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    media: &'static str,
) -> Operation {
    Operation { answer: Answer::Text(media, summary), kind: Kind::Open, ..read(path, id, summary, "") }
}

impl Operation {
    pub(super) const fn query(self, query: &'static [Field]) -> Self {
        Self { query, ..self }
    }

    pub(super) const fn takes(self, kind: &'static str, meaning: &'static str, example: &'static str) -> Self {
        self.body(JSON, kind, meaning, example)
    }

    pub(super) const fn patched_by(self, kind: &'static str, example: &'static str) -> Self {
        self.body(PATCH, kind, "A merge patch (RFC 7396)", example)
    }

    pub(super) const fn body(
        self,
        media: &'static [&'static str],
        kind: &'static str,
        meaning: &'static str,
        example: &'static str,
    ) -> Self {
        Self { body: Some(Body { media, document: (kind, meaning), may_be_absent: false, example }), ..self }
    }

    pub(super) const fn or_nothing(self) -> Self {
        match self.body {
            Some(body) => Self { body: Some(Body { may_be_absent: true, ..body }), ..self },
            None => self,
        }
    }

    pub(super) const fn answers(self, status: u16, kind: &'static str) -> Self {
        Self { status, answer: Answer::Json(kind), ..self }
    }

    /// It may meet these problems, too.
    pub(super) const fn refuses(self, refusals: &'static [Code]) -> Self {
        Self { refusals, ..self }
    }

    /// A twin comes into being with it.
    pub(super) const fn makes(self) -> Self {
        Self { never: &[Code::NotFound], ..self }
    }

    /// A twin comes into being with it, also again after its removal.
    pub(super) const fn revives(self) -> Self {
        Self { never: &[Code::NotFound, Code::Removed], ..self }
    }
}
