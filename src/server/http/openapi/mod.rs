//! The port described in OpenAPI 3.1. `operations` has a row for every operation, `schemas` one for every field of a
//! body; this puts them together. Tests hold the rows against the routes, and what a node answers against both.

mod notation;
mod operation;
mod operations;
mod parameters;
mod responses;
mod schemas;
mod special;

use std::sync::OnceLock;

use axum::response::Response;
use serde_json::{Map, Value, json};

use self::{
    notation::typed,
    operation::{Body, Kind, Operation},
    operations::OPERATIONS,
};
use super::caller;

/// The document.
pub fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(build)
}

/// Answers with the document; whoever may enter may read it.
pub(super) async fn answer(_: caller::Caller) -> Response {
    caller::json(None, document())
}

fn build() -> Value {
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let item = paths.entry(operation.path).or_insert_with(|| json!({}));
        item[operation.method] = describe(operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "service-twin",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Every microservice gets one durable twin",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "key": [] }, { "daprKey": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "key": { "type": "http", "scheme": "bearer", "description": "An API key: twk_… (`twin key new`)" },
                "daprKey": { "type": "apiKey", "in": "header", "name": "dapr-api-token", "description": "The same" },
            },
            "schemas": notation::all(),
            "headers": {
                "ETag": {
                    "required": true,
                    "schema": { "type": "string", "pattern": "^\"[0-9]+\"$" },
                    "description": "The twin's revision; what `If-Match` and `If-None-Match` take",
                },
            },
            "responses": responses::problems(),
        },
    })
}

fn describe(operation: &Operation) -> Value {
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": parameters::of(operation),
        "responses": responses::of(operation),
    });
    if operation.kind == Kind::Open {
        described["security"] = json!([]);
    }
    if let Some(body) = &operation.body {
        described["requestBody"] = request(body);
    }
    described
}

fn request(body: &Body) -> Value {
    let mut content = Map::new();
    for media in body.media {
        let described = if media.ends_with("json") { typed_body(body) } else { binary() };
        content.insert((*media).to_owned(), described);
    }
    json!({ "required": !body.may_be_absent, "content": content })
}

fn typed_body(body: &Body) -> Value {
    let (kind, meaning) = body.document;
    let mut described = json!({ "schema": typed(kind, meaning) });
    if !body.example.is_empty() {
        described["example"] = serde_json::from_str(body.example).unwrap_or_default();
    }
    described
}

/// What is no JSON has no schema.
fn binary() -> Value {
    json!({})
}

#[cfg(test)]
mod tests;
