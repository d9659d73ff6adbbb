//! Every operation, one row each.

use super::operation::{Answer, Kind, OTLP, Operation, note, plain, read, silent, stream, telemetry, text, write};
use crate::server::problem::Code;

const LIMIT: &str = "Most entries of the page";
/// Events of what happens to twins.
const EVENTS: &[(&str, &str)] = &[("twin.…", "CloudEvent"), ("gap", "Gap"), ("end", "End")];
const FORBIDDEN: &[Code] = &[Code::Denied];
/// What a capability request may meet beside what is about its twin.
const USED: &[Code] = &[Code::Conflict, Code::LimitExceeded, Code::PreconditionFailed, Code::Throttled];

/// Every operation of the port, in the order of the routes.
pub(super) static OPERATIONS: &[Operation] = &[
    plain("/api/v1/openapi.json", "describe", "This document", "object"),
    plain("/api/v1/twins", "find", "Finds twins in the index, in order of their ids", "Twins")
        .query(&[
            ("health", "Status", "Only of this health"),
            ("name", "string", "Only of this name; one that ends in * stands for all that begin so"),
            ("namespace", "string", "Only of this namespace; * as above"),
            ("version", "string", "Only with an instance of this version; * as above"),
            ("environment", "string", "Only of this deployment environment; * as above"),
            ("in_sync", "boolean", "Only those whose features are, or are not, as desired"),
            ("instances", "integer", "Only with so many instances up"),
            ("attr.*", "", "Only with these values of attributes, as in attr.owner=team-a; * as above"),
            ("after", "Cursor", "Go on after this twin: `next` of the page before"),
            ("limit", "1..1000", LIMIT),
        ])
        .refuses(FORBIDDEN),
    Operation {
        kind: Kind::Read { is_tagged: false },
        ..read("/api/v1/twins/{namespace}/{name}", "get", "Reads a twin", "Twin")
    }
    .query(&[
        ("behaviour", "boolean", "With what was observed"),
        ("at", "Moment", "As it was at a revision, or at a time (RFC 3339, or milliseconds since 1970)"),
    ])
    .refuses(&[Code::HistoryGone]),
    note("put", "/api/v1/twins/{namespace}/{name}", "create", "Creates a twin, also again after its removal")
        .takes("NewTwin?", "", r#"{"attributes": {"owner": "team-a", "tier": 1}}"#)
        .or_nothing()
        .answers(201, "Written")
        .revives(),
    write("delete", "/api/v1/twins/{namespace}/{name}", "remove", "Removes a twin with everything that is its"),
    read("/api/v1/twins/{namespace}/{name}/attributes", "getAttributes", "Reads the attributes", "object"),
    write("patch", "/api/v1/twins/{namespace}/{name}/attributes", "setAttributes", "Changes attributes")
        .patched_by("object", r#"{"owner": "team-b", "tier": null}"#)
        .makes(),
    read(
        "/api/v1/twins/{namespace}/{name}/attributes/{attribute}",
        "getAttribute",
        "Reads one attribute, whatever it is",
        "any",
    ),
    plain("/api/v1/twins/{namespace}/{name}/behaviour", "getBehaviour", "Reads what was observed", "Behaviour"),
    plain("/api/v1/twins/{namespace}/{name}/journal", "getJournal", "Reads what changed", "Journal")
        .query(&[("after", "integer", "Only later revisions"), ("limit", "1..1000", LIMIT)])
        .refuses(&[Code::HistoryGone]),
    read("/api/v1/twins/{namespace}/{name}/features", "listFeatures", "Reads every feature", "[Feature]"),
    read("/api/v1/twins/{namespace}/{name}/features/{feature}", "getFeature", "Reads one feature", "Feature"),
    write(
        "put",
        "/api/v1/twins/{namespace}/{name}/features/{feature}/desired",
        "replaceDesired",
        "Says what a feature shall be",
    )
    .takes("any", "What it shall be", r#"{"rps": 50, "burst": 5}"#)
    .makes(),
    write(
        "patch",
        "/api/v1/twins/{namespace}/{name}/features/{feature}/desired",
        "patchDesired",
        "Changes what a feature shall be",
    )
    .patched_by("any", r#"{"rps": 60}"#)
    .makes(),
    write(
        "delete",
        "/api/v1/twins/{namespace}/{name}/features/{feature}/desired",
        "removeDesired",
        "Takes away what a feature shall be",
    ),
    read(
        "/api/v1/twins/{namespace}/{name}/features/{feature}/delta",
        "getDelta",
        "Reads what is desired of a feature and not so",
        "Delta",
    ),
    write(
        "post",
        "/api/v1/twins/{namespace}/{name}/features/{feature}/report",
        "report",
        "Takes what a service says of a feature",
    )
    .takes("Report", "", r#"{"instance": "orders-1", "reported": {"rps": 50}}"#)
    .makes(),
    plain("/api/v1/twins/{namespace}/{name}/instances", "listInstances", "Reads the instances", "[Instance]"),
    note(
        "put",
        "/api/v1/twins/{namespace}/{name}/instances/{instance}",
        "heartbeat",
        "Notes that an instance is there; its twin comes into being with it",
    )
    .takes("Heartbeat?", "", r#"{"version": "1.4.0", "health": {"status": "healthy", "reason": ""}}"#)
    .or_nothing()
    .revives(),
    note(
        "delete",
        "/api/v1/twins/{namespace}/{name}/instances/{instance}",
        "deregister",
        "Notes that an instance has gone in good order",
    ),
    stream(
        "/api/v1/twins/{namespace}/{name}/instances/{instance}/commands",
        "takeCommands",
        "Hands an instance its commands as they come; what is handed over counts as delivered",
        &[("command", "Delivery"), ("end", "End")],
    )
    .refuses(&[Code::Conflict]),
    Operation {
        answer: Answer::Nothing,
        status: 101,
        ..plain(
            "/api/v1/twins/{namespace}/{name}/instances/{instance}/channel",
            "openChannel",
            "Turns the connection (Upgrade: twin-channel) into HTTP/2 on which the node asks the instance's application",
            "",
        )
    }
    .query(&[("protocol", "http|grpc", "What the application speaks; http if absent")])
    .refuses(&[Code::Invalid, Code::Overloaded]),
    plain("/api/v1/twins/{namespace}/{name}/commands", "listCommands", "Reads commands, newest first", "Commands")
        .query(&[
            ("before", "integer", "Only commands with a smaller id: `next` of the page before"),
            ("limit", "1..200", LIMIT),
        ]),
    write("post", "/api/v1/twins/{namespace}/{name}/commands", "postCommand", "Posts a command")
        .takes("NewCommand", "", r#"{"name": "restart", "parameters": {"grace_s": 3}}"#)
        .answers(202, "Posted")
        .makes(),
    plain("/api/v1/twins/{namespace}/{name}/commands/{id}", "getCommand", "Reads one command", "Command"),
    note(
        "post",
        "/api/v1/twins/{namespace}/{name}/commands/{id}/ack",
        "acknowledgeCommand",
        "Notes that an instance has begun with a command",
    )
    .takes("Ack", "", r#"{"instance": "orders-1"}"#),
    note(
        "post",
        "/api/v1/twins/{namespace}/{name}/commands/{id}/result",
        "finishCommand",
        "Notes how an instance ended with a command",
    )
    .takes("Result", "", r#"{"instance": "orders-1", "result": {"restarted": true}}"#),
    write(
        "post",
        "/api/v1/twins/{namespace}/{name}/commands/{id}/cancel",
        "cancelCommand",
        "Takes a command back wherever it has not ended",
    ),
    write(
        "put",
        "/api/v1/twins/{namespace}/{name}/command-definitions/{command}",
        "defineCommand",
        "States what parameters a command takes",
    )
    .takes("CommandSchema", "", r#"{"type": "object", "properties": {"grace_s": {"type": "integer"}}}"#)
    .makes(),
    write(
        "delete",
        "/api/v1/twins/{namespace}/{name}/command-definitions/{command}",
        "undefineCommand",
        "Takes a command's schema away",
    ),
    read("/api/v1/twins/{namespace}/{name}/access", "getAccess", "Reads what the service may do", "Access"),
    write("patch", "/api/v1/twins/{namespace}/{name}/access", "editAccess", "Gives and takes grants")
        .takes("AccessEdit", "", r#"{"add": [{"effect": "deny", "scope": "state:statestore/private-*"}]}"#)
        .makes(),
    Operation {
        method: "post",
        ..plain(
            "/api/v1/twins/{namespace}/{name}/access/check",
            "checkAccess",
            "Says how rights would be ruled on, and by which rule",
            "[Checked]",
        )
    }
    .takes("Rights", "", r#"{"rights": [{"operation": "get", "scope": "state:statestore/order-1"}]}"#)
    .refuses(&[Code::LimitExceeded]),
    Operation {
        kind: Kind::Look,
        ..read(
            "/api/v1/twins/{namespace}/{name}/configuration",
            "getConfiguration",
            "Reads everything that is configured, and which instance has applied it",
            "Configuration",
        )
    }
    .refuses(USED),
    write("patch", "/api/v1/twins/{namespace}/{name}/configuration", "putConfiguration", "Changes keys in one commit")
        .takes("ConfigurationEdit", "", r#"{"keys": {"limits.rps": {"value": "50"}, "old": null}}"#)
        .answers(200, "ConfigurationSet")
        .makes()
        .refuses(USED),
    note(
        "post",
        "/api/v1/twins/{namespace}/{name}/configuration/rollback",
        "rollBackConfiguration",
        "Takes the newest version back",
    )
    .takes("ConfigurationSet", "", r#"{"version": 2}"#)
    .answers(200, "ConfigurationSet")
    .refuses(USED),
    silent("post", "/api/v1/twins/{namespace}/{name}/configuration/applied", "applyConfiguration", "Notes that an instance applied a version, or could not")
    .takes("ConfigurationUse", "", r#"{"instance": "orders-1", "version": 1}"#)
    .refuses(USED),
    plain("/api/v1/twins/{namespace}/{name}/callers", "getCallers", "Reads who may invoke the service", "Callers")
        .refuses(USED),
    silent("put", "/api/v1/twins/{namespace}/{name}/callers", "setCallers", "States who may invoke the service")
    .takes("CallersEdit", "", r#"{"callers": [{"service": "shop/checkout", "method": "POST /charge"}]}"#)
    .refuses(USED),
    silent("delete", "/api/v1/twins/{namespace}/{name}/callers", "clearCallers", "Takes the list of callers away: whoever was granted it may invoke the service")
    .refuses(USED),
    plain(
        "/api/v1/twins/{namespace}/{name}/endpoints",
        "listEndpoints",
        "Lists where applications of the service are that open no channel",
        "[Endpoint]",
    )
    .refuses(USED),
    silent("put", "/api/v1/twins/{namespace}/{name}/endpoints/{instance}", "setEndpoint", "Registers where an application is; the service's grants of egress have to allow it")
    .takes("NewEndpoint", "", r#"{"url": "http://127.0.0.1:8080"}"#)
    .refuses(USED),
    silent("delete", "/api/v1/twins/{namespace}/{name}/endpoints/{instance}", "removeEndpoint", "Removes an endpoint")
    .refuses(USED),
    plain(
        "/api/v1/twins/{namespace}/{name}/components",
        "listComponents",
        "Lists the names of the service's components",
        "[Component]",
    )
    .refuses(USED),
    silent("put", "/api/v1/twins/{namespace}/{name}/components/{component}", "addComponent", "Adds a name for a capability")
    .takes("NewComponent", "", r#"{"kind": "secrets"}"#)
    .refuses(USED),
    silent("delete", "/api/v1/twins/{namespace}/{name}/components/{component}", "removeComponent", "Removes a name that was added")
    .refuses(USED),
    Operation {
        method: "post",
        kind: Kind::Keyed,
        ..plain(
            "/api/v1/twins/{namespace}/{name}/capabilities/{capability}/{request}",
            "callCapability",
            "Asks a capability by the name of a request; `listCapabilities` names them",
            "any",
        )
    }
    .takes("any", "The request's fields; nothing for one without", r#"{"store": "statestore", "keys": ["order-1"]}"#)
    .or_nothing()
    .refuses(USED),
    plain("/api/v1/twins/{namespace}/{name}/secrets", "listSecrets", "Lists secrets, without their values", "[Secret]")
        .refuses(USED),
    plain(
        "/api/v1/twins/{namespace}/{name}/secrets/{secret}",
        "getSecret",
        "Says where a secret stands, and which instance uses which version",
        "Secret",
    )
    .refuses(USED),
    Operation {
        method: "put",
        ..plain(
            "/api/v1/twins/{namespace}/{name}/secrets/{secret}",
            "putSecret",
            "Sets a new version: the body",
            "SecretSet",
        )
    }
    .query(&[
        ("rotate", "boolean", "Keep the version before valid until every live instance moved on"),
        ("overlap_s", "integer", "For how many seconds at the longest; an hour if absent"),
        ("unless_same", "boolean", "Change nothing if the newest version is the same; takes the right to read it, too"),
    ])
    .body(&["application/octet-stream"], "", "", "")
    .refuses(USED),
    silent("delete", "/api/v1/twins/{namespace}/{name}/secrets/{secret}", "deleteSecret", "Deletes a secret")
    .refuses(USED),
    Operation {
        answer: Answer::Text("application/octet-stream", "The value"),
        ..plain(
            "/api/v1/twins/{namespace}/{name}/secrets/{secret}/value",
            "readSecret",
            "Reads a secret; that is journaled",
            "",
        )
    }
    .query(&[("version", "integer", "Which version: the newest, or the one before while it is valid")])
    .refuses(USED),
    silent("post", "/api/v1/twins/{namespace}/{name}/secrets/{secret}/ack", "acknowledgeSecret", "Notes that an instance uses a version")
    .takes("SecretUse", "", r#"{"instance": "orders-1", "version": 1}"#)
    .refuses(USED),
    plain("/api/v1/twins/{namespace}/{name}/state", "listStores", "Lists the stores of the service", "[Store]")
        .refuses(USED),
    Operation {
        kind: Kind::Plain,
        answer: Answer::Nothing,
        status: 204,
        ..write("put", "/api/v1/twins/{namespace}/{name}/state/{store}", "addStore", "Adds a store, if it is not there")
    }
    .makes()
    .refuses(USED),
    Operation {
        kind: Kind::Plain,
        answer: Answer::Nothing,
        status: 204,
        ..write("delete", "/api/v1/twins/{namespace}/{name}/state/{store}", "removeStore", "Removes an empty store")
    }
    .refuses(USED),
    plain("/api/v1/twins/{namespace}/{name}/state/{store}", "listState", "Lists keys, in order", "StateKeys")
        .query(&[
            ("prefix", "string", "Only keys that start so"),
            ("after", "string", "Only keys greater than this: `next` of the page before"),
            ("limit", "1..100", LIMIT),
        ])
        .refuses(USED),
    Operation {
        method: "post",
        ..plain(
            "/api/v1/twins/{namespace}/{name}/state/{store}",
            "transactState",
            "Does up to 16 operations in order, all or none",
            "StateWritten",
        )
    }
    .takes("StateOperations", "", r#"{"operations": [{"operation": "set", "key": "order-1", "value": {"total": 3}}]}"#)
    .refuses(USED),
    Operation {
        answer: Answer::Text("application/octet-stream", "The value as it was written"),
        ..read("/api/v1/twins/{namespace}/{name}/state/{store}/{state_key}", "getState", "Reads a value", "")
    }
    .refuses(USED),
    Operation {
        answer: Answer::Nothing,
        status: 204,
        ..write(
            "put",
            "/api/v1/twins/{namespace}/{name}/state/{store}/{state_key}",
            "putState",
            "Writes a value: the body",
        )
    }
    .query(&[("ttl_s", "1..4294967295", "How long it is there, in seconds; for ever if absent")])
    .body(&["application/octet-stream"], "", "", "")
    .refuses(USED),
    Operation {
        answer: Answer::Nothing,
        status: 204,
        kind: Kind::Plain,
        ..write("delete", "/api/v1/twins/{namespace}/{name}/state/{store}/{state_key}", "deleteState", "Deletes a key")
    }
    .refuses(USED),
    Operation {
        method: "post",
        ..plain(
            "/api/v1/twins/{namespace}/{name}/topics/replay",
            "replayTopic",
            "Has the service's subscriptions to a topic begin anew; what is kept from there on comes again",
            "Replayed",
        )
    }
    .takes("Replay", "", r#"{"component": "pubsub", "topic": "orders", "from": "oldest"}"#)
    .refuses(USED),
    plain(
        "/api/v1/twins/{namespace}/{name}/subscriptions",
        "listSubscriptions",
        "Lists the subscriptions that the service has declared",
        "[Subscription]",
    )
    .refuses(USED),
    silent("put", "/api/v1/twins/{namespace}/{name}/subscriptions/{subscription}", "setSubscription", "Declares where in the application a topic's messages go")
    .takes("NewSubscription", "", r#"{"component": "pubsub", "topic": "orders", "path": "/orders"}"#)
    .refuses(USED),
    silent("delete", "/api/v1/twins/{namespace}/{name}/subscriptions/{subscription}", "removeSubscription", "Removes a subscription")
    .refuses(USED),
    stream("/api/v1/twins/{namespace}/{name}/events", "watchTwin", "Follows one twin", EVENTS),
    stream("/api/v1/events", "watchAll", "Follows every twin", EVENTS).refuses(FORBIDDEN),
    plain("/api/v1/capabilities", "listCapabilities", "Lists what capabilities can be asked by name", "[CapabilityRequest]"),
    plain("/api/v1/cluster", "getCluster", "Shows the nodes of the cluster, and who owns how much", "Cluster")
        .refuses(FORBIDDEN),
    plain("/api/v1/keys", "listKeys", "Lists keys", "Keys")
        .query(&[("after", "Cursor", "Go on after this key: `next` of the page before"), ("limit", "1..200", LIMIT)])
        .refuses(&[Code::Denied, Code::Invalid]),
    Operation { method: "post", ..plain("/api/v1/keys", "mintKey", "Makes a key", "") }
        .takes("NewKey", "", r#"{"kind": "service", "service": "shop/orders", "label": "example"}"#)
        .answers(201, "FreshKey")
        .refuses(FORBIDDEN),
    Operation { method: "delete", ..plain("/api/v1/keys/{key}", "revokeKey", "Revokes a key", "Key") }.refuses(&[
        Code::Denied,
        Code::Invalid,
        Code::NotFound,
    ]),
    Operation {
        method: "post",
        ..plain("/api/v1/keys/{key}/rotate", "rotateKey", "Makes a key in the place of another", "")
    }
    .takes("Rotation", "", r#"{"overlap_s": 3600}"#)
    .or_nothing()
    .answers(201, "FreshKey")
    .refuses(&[Code::Denied, Code::Invalid, Code::NotFound, Code::Conflict]),
    Operation { method: "post", ..plain("/api/v1/keys/revoke", "revokeKeys", "Revokes the keys of a service", "Keys") }
        .takes("KeysOfService", "", r#"{"service": "shop/orders"}"#)
        .refuses(FORBIDDEN),
    telemetry("/v1/traces", "exportTraces", "Takes spans", "TracesTaken").body(OTLP, "Traces", "", ""),
    telemetry("/v1/metrics", "exportMetrics", "Takes metric points", "MetricsTaken").body(OTLP, "Metrics", "", ""),
    telemetry("/v1/logs", "exportLogs", "Takes log records", "LogsTaken").body(OTLP, "Logs", "", ""),
    text("/livez", "isAlive", "The process is alive", "text/plain"),
    Operation {
        otherwise: Some("It does not, and why"),
        ..text("/readyz", "isReady", "The node takes requests", "text/plain")
    },
    Operation {
        kind: Kind::Plain,
        ..text(
            "/metrics",
            "getMetrics",
            "Every metric of the node, as OpenMetrics 1.0 has it",
            "application/openmetrics-text",
        )
    }
    .refuses(FORBIDDEN),
    text("/problems/{code}", "getProblem", "The page of a problem's code", "text/markdown").refuses(&[Code::NotFound]),
];
