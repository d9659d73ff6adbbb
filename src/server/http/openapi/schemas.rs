//! What bodies hold: one row a field; `notation` says how types are written.

use super::notation::Schema;

/// Objects by name: `answered` ones may get more fields with a later release, `taken` ones are refused with any other.
/// A field has a name, which a `?` follows if it may be left out; a type; and a meaning.
macro_rules! schemas {
    (@answered) => { false };
    (@taken) => { true };
    ($($door:ident $name:ident: $meaning:literal { $($field:literal $kind:literal $said:literal;)* })*) => {
        pub(super) static SCHEMAS: &[Schema] = &[$(Schema {
            name: stringify!($name),
            meaning: $meaning,
            is_closed: schemas!(@$door),
            fields: &[$(($field, $kind, $said),)*],
        },)*];
    };
}

schemas! {
    answered Written: "The outcome of a write" {
        "revision" "integer" "The twin's revision now: the one this made, or the one it found if nothing changed";
        "repeated?" "boolean" "The request was done before under the same key, and its answer is no longer kept";
    }
    // Twins.
    answered Twin: "A twin" {
        "id" "string" "`namespace/name`";
        "namespace" "string" "`service.namespace`";
        "name" "string" "`service.name`";
        "revision" "integer" "Changes so far; what `If-Match` takes";
        "created_at" "Time" "When it came into being";
        "version" "string?" "Version of the instance that was seen first last, if it states one";
        "environment" "string?" "`deployment.environment.name`";
        "health" "Health" "How it is, and why";
        "in_sync" "boolean" "Whether every desired feature is as desired";
        "attributes" "object" "What people say of it";
        "instances" "[Instance]" "Its instances";
        "instances_beyond" "integer" "How many more instances spoke lately, for which there is no room";
        "features" "[Feature]" "What can be steered of it";
        "alerts" "[Alert]" "What deviates now";
        "commands_live" "integer" "Commands that have not ended";
        "commands_defined" "[string]" "Names of the commands with a schema";
        "behaviour" "Behaviour?" "What was observed, if asked for";
    }
    answered Health: "Health; the worst of its reasons" {
        "status" "Status" "How it is";
        "since" "Time" "Since when";
        "reasons" "[Reason]" "Why, worst first; empty if it is healthy";
    }
    answered Reason: "One reason for a health other than healthy" {
        "status" "Status" "How bad this alone makes it";
        "code" "string" "What kind: `instance.lost`, `instance.health`, `alert`, `feature.failed`, …";
        "subject" "string" "Of what: an instance, an alert's key, a feature";
    }
    answered Alert: "Something that deviates from what is usual" {
        "key" "string" "What: `errors GET /orders`";
        "status" "Status" "How bad";
        "opened_at" "Time" "Since when";
        "value" "number" "The value that opened it";
        "expected" "number" "What was expected";
    }
    answered Instance: "One running copy of the service" {
        "id" "string" "`service.instance.id`";
        "version" "string?" "`service.version`, if it states one";
        "presence" "up|lost" "Whether it was heard of within the presence timeout";
        "presence_since" "Time" "Since when";
        "first_seen" "Time" "When it was first heard of";
        "last_seen" "Time?" "When it was last heard of, as far as the twin knows since it is in memory";
        "health" "Status" "What it says of itself";
        "health_reason" "string" "Why, in its words";
    }
    answered Twins: "A page of twins, in order of their ids" {
        "twins" "[FoundTwin]" "Those found";
        "next?" "string" "`after` of the next page; absent on the last one";
    }
    answered FoundTwin: "A twin as the index has it" {
        "id" "string" "`namespace/name`";
        "namespace" "string" "`service.namespace`";
        "name" "string" "`service.name`";
        "terms" "Terms" "What it is found by: `health`, `version`, `attr.owner`, …";
    }
    taken NewTwin: "How a twin begins" {
        "attributes?" "object?" "Its first attributes; at most 2,048 bytes";
    }
    // The journal.
    answered Journal: "A page of what changed, oldest first" {
        "entries" "[JournalEntry]" "One entry a revision";
        "next?" "integer" "`after` of the next page; absent on the last one";
    }
    answered JournalEntry: "What one request changed" {
        "revision" "integer" "The revision it made";
        "at" "Time" "When";
        "principal" "string" "Who: `operator:` and the key's id, `service:`, `ingest:`, `twin:` …, `runtime`, `host`";
        "trace?" "string" "W3C `traceparent` of the request";
        "idempotency_key?" "string" "The request's `Idempotency-Key`";
        "changes" "[Change]" "The facts";
    }
    // Features.
    answered Feature: "One aspect of a service that can be steered" {
        "revision" "integer" "The twin's revision";
        "name" "string" "Its name";
        "desired" "any" "What it shall be; null if nothing is desired";
        "desired_version" "integer" "The revision that set it so; 0 if none did";
        "reported" "any" "What the service says it is; null if it says nothing";
        "reported_version" "integer" "The revision that set it so; 0 if none did";
        "effective" "any" "What is in force, as the service says; null if it says nothing";
        "delta" "any" "The desired fields that are not so; null if there are none";
        "in_sync" "boolean" "No delta, and no instance is behind or has failed";
        "diverged_since" "Time?" "Since when it is not in sync";
        "acknowledgements" "[Acknowledgement]" "What each instance did with a desired version";
    }
    answered Acknowledgement: "What one instance did with a desired version" {
        "instance" "string" "The instance";
        "version" "integer" "The desired version it spoke of last";
        "error" "string?" "Why it could not be applied; null if it was";
        "at" "Time" "When it said so";
    }
    answered Delta: "What is desired of a feature and not so" {
        "in_sync" "boolean" "No delta, and no instance is behind or has failed";
        "desired_version" "integer" "The revision that set what is desired; 0 if none did";
        "delta?" "any" "The desired fields that are not so; absent if there are none";
    }
    taken Report: "What a service says of a feature; a document or its patch, not both" {
        "instance?" "string?" "Which instance speaks; needed for `applied`";
        "reported?" "any" "What the feature is";
        "reported_patch?" "any" "The same as a merge patch (RFC 7396)";
        "effective?" "any" "What is in force";
        "effective_patch?" "any" "The same as a merge patch (RFC 7396)";
        "applied?" "Applied?" "What the instance did with a desired version";
    }
    taken Applied: "What an instance did with a desired version" {
        "version" "integer" "The `desired_version` it speaks of";
        "error?" "string?" "Why it could not be applied; absent if it was; cut at 64 bytes";
    }
    taken Heartbeat: "What an instance says of itself" {
        "version?" "string?" "Its version; cut at 32 bytes";
        "health?" "SelfHealth?" "How it is; unchanged if absent";
    }
    taken SelfHealth: "How an instance is" {
        "status" "Status" "How it is";
        "reason" "string" "Why, in words; cut at 64 bytes";
    }
    // Commands.
    answered Commands: "A page of commands, newest first" {
        "commands" "[Command]" "The commands";
        "next" "integer?" "`before` of the next page; null on the last one";
    }
    answered Command: "One command" {
        "id" "integer" "Its id within the twin";
        "name" "string" "What to do";
        "parameters" "any" "Its parameters; null once it has ended";
        "state" "CommandState" "Where it is as a whole";
        "posted_at" "Time" "When it was posted";
        "ended_at" "Time?" "When it ended";
        "result" "any" "What came of it last; null if nothing did";
        "error" "string?" "Why it failed";
        "runs" "[Run]" "Where it is at each instance that has to do with it";
    }
    answered Run: "A command at one instance" {
        "instance" "string?" "The instance; null if it is not known any more";
        "state" "CommandState" "Where it is";
        "due_at" "Time?" "Until when it must move on; null if it has ended";
    }
    answered Posted: "A command was taken in" {
        "id" "integer" "The command's id within the twin";
        "revision" "integer" "The twin's revision now";
    }
    answered Delivery: "A command handed to an instance" {
        "id" "integer" "The command's id; what `ack` and `result` name";
        "name" "string" "What to do";
        "parameters" "any" "Its parameters";
        "finish_by" "Time" "Until when it must be finished";
    }
    taken NewCommand: "A command" {
        "name" "Name" "What to do";
        "parameters?" "any" "Its parameters, at most 1,024 bytes; checked if a schema is defined; {} by default";
        "target?" "Target" "Who shall do it; `any` by default";
        "delivery_timeout_ms?" "integer?" "How long it may wait to be collected, in milliseconds; at least 1";
        "execution_timeout_ms?" "integer?" "How long it may take once collected, in milliseconds; at least 1";
        "pace?" "Pace?" "How it proceeds over many instances; all at once, whatever fails, if absent";
    }
    taken Pace: "How a command for all instances proceeds" {
        "concurrency_max" "Count" "Most instances at work at once; at least 1";
        "errors_max" "Count" "Most failures before the rest is cancelled";
    }
    taken Ack: "Who has begun with a command" {
        "instance" "string" "The instance";
    }
    taken Result: "How an instance ended with a command" {
        "instance" "string" "The instance";
        "result?" "any" "What came of it; at most 128 bytes";
        "error?" "string?" "Why it failed; absent if it did not; cut at 128 bytes";
    }
    // Behaviour.
    answered Behaviour: "What the service does, as observed; a gap is a gap, never a zero" {
        "saved_at" "Time?" "When it was last saved; what came later is lost by a crash";
        "samples" "integer" "Samples since the twin came into being";
        "operations" "[Operation]" "Rate, errors, duration per operation and version";
        "series" "[Series]" "Every other metric";
        "edges" "[Edge]" "What it calls";
        "logs" "[integer]" "Log records by severity: trace, debug, info, warn, error, fatal";
        "errors" "[LoggedError]" "The newest errors, newest first";
        "baselines" "[Baseline]" "What is expected";
    }
    answered Operation: "Rate, errors and duration of one operation at one version" {
        "operation" "string" "The operation; `_other` for those that did not fit";
        "version" "string" "The version; empty if none was stated";
        "kind" "string" "Which side: `server`, `client`, `producer`, `consumer`, `internal`";
        "source" "string" "Where the numbers come from: `spans` or `metrics`";
        "count" "integer" "How often, in total";
        "errors" "integer" "How often it failed, in total";
        "rate" "number" "How often per second, over the last five minutes";
        "error_ratio" "number" "Share that failed, over the last five minutes; 0 to 1";
        "sum_s" "number" "Sum of all durations, in seconds";
        "p50_s" "number?" "Half took no longer, in seconds, of the last five to ten minutes; null after silence";
        "p90_s" "number?" "90 % took no longer";
        "p95_s" "number?" "95 % took no longer";
        "p99_s" "number?" "99 % took no longer";
        "max_s" "number?" "The longest";
        "ever" "Distribution" "Durations since the twin came into being, in seconds";
        "last_at" "Time" "When it was last seen";
    }
    answered Distribution: "How measurements are distributed, within 1 %" {
        "count" "integer" "How many there are";
        "p50" "number?" "Half are not larger";
        "p90" "number?" "90 % are not larger";
        "p95" "number?" "95 % are not larger";
        "p99" "number?" "99 % are not larger";
        "max" "number?" "The largest";
    }
    answered Series: "One metric at several resolutions" {
        "name" "string" "The metric with the attributes that tell series apart; `_other` for what did not fit";
        "unit" "string" "Unit as it was sent";
        "shape" "string" "`gauge` (levels), `counter` (per second) or `histogram` (means)";
        "last" "number" "The newest level; of a counter the total; of a histogram the number of measurements";
        "p50" "number?" "Of a histogram: half of the last five to ten minutes; null after silence";
        "p99" "number?" "Of a histogram: 99 %";
        "ever" "Distribution?" "Of a histogram: since the twin came into being";
        "last_at" "Time" "When it was last sent";
        "tiers" "[Tier]" "The history, finest first";
    }
    answered Tier: "One resolution" {
        "width_s" "integer" "Width of a bin, in seconds";
        "bins" "[Bin]" "Those that hold something, oldest first";
    }
    answered Bin: "One bin" {
        "start" "Time" "Its start";
        "value" "number" "Mean of levels, or rate per second";
        "min" "number" "The least";
        "max" "number" "The greatest";
    }
    answered Edge: "A dependency" {
        "peer" "string" "What is called; `_other` for those that did not fit";
        "kind" "service|database|messaging|address" "What kind of thing it is";
        "count" "integer" "How often, in total";
        "errors" "integer" "How often it failed, in total";
        "mean_s" "number" "Mean duration, in seconds";
        "last_at" "Time" "When it was last called";
    }
    answered LoggedError: "A logged error" {
        "at" "Time" "When";
        "exception" "string?" "`exception.type`";
        "body" "string" "The message";
        "trace_id" "string?" "The trace, in hexadecimal digits";
    }
    answered Baseline: "What is expected of a value" {
        "key" "string" "Which: `rate`, `errors`, `duration`, `errors POST /orders (2.0.0)`, `series …`";
        "value" "number" "The newest value";
        "expected" "number" "What the exponentially weighted mean expects";
        "seasonal" "number?" "What was at this time last week, or yesterday while the twin is younger than that";
        "deviation" "number" "Distance from what is expected, in standard deviations";
    }
    // Streams.
    answered CloudEvent: "An event in the JSON format of CloudEvents 1.0" {
        "specversion" "string" "1.0";
        "id" "string" "What `Last-Event-ID` takes";
        "source" "string" "Path of the twin";
        "type" "string" "`twin.created`, `twin.health.changed`, `twin.command.changed`, …";
        "subject" "string" "Id of the twin";
        "time" "string" "When, as RFC 3339 has it";
        "datacontenttype" "string" "application/json";
        "revision" "integer" "The twin's revision with this change";
        "data" "object" "What changed";
    }
    answered Gap: "Events are missing here" {
        "reason" "string" "Why";
        "hint" "string" "What to do";
    }
    answered End: "The last event of a stream that the node ends" {
        "reason" "string" "Why";
        "code" "string" "The code of the problem";
    }
    // Telemetry: the JSON of OTLP 1.5, where a number of 64 bits is a string.
    answered Traces: "ExportTraceServiceRequest" { "resourceSpans?" "[object]" "Spans by resource and scope"; }
    answered Metrics: "ExportMetricsServiceRequest" { "resourceMetrics?" "[object]" "Points by resource and scope"; }
    answered Logs: "ExportLogsServiceRequest" { "resourceLogs?" "[object]" "Records by resource and scope"; }
    answered TracesTaken: "ExportTraceServiceResponse" {
        "partialSuccess?" "SpansRefused" "What was not taken; absent if all was";
    }
    answered MetricsTaken: "ExportMetricsServiceResponse" {
        "partialSuccess?" "PointsRefused" "What was not taken; absent if all was";
    }
    answered LogsTaken: "ExportLogsServiceResponse" {
        "partialSuccess?" "RecordsRefused" "What was not taken; absent if all was";
    }
    answered SpansRefused: "Part of the request was not taken, and shall not be sent again" {
        "rejectedSpans" "string" "How many";
        "errorMessage" "string" "Why";
    }
    answered PointsRefused: "Part of the request was not taken, and shall not be sent again" {
        "rejectedDataPoints" "string" "How many";
        "errorMessage" "string" "Why";
    }
    answered RecordsRefused: "Part of the request was not taken, and shall not be sent again" {
        "rejectedLogRecords" "string" "How many";
        "errorMessage" "string" "Why";
    }
    // The cluster.
    answered Cluster: "A cluster as one of its nodes sees it" {
        "node" "string?" "The node that says so; nothing if it shares its twins with nobody";
        "nodes" "[Node]" "Every node, itself included";
        "slots" "integer" "Parts into which all ids are cut";
        "unowned" "integer" "Parts without an owner that can be reached: calls to their twins wait";
        "misplaced" "integer" "Parts that are not where they shall be yet";
        "moving" "integer" "Parts that this node is taking or giving away at present";
        "lease_left_ms" "integer" "How long this node may answer from memory if its lease is not renewed";
        "waiting" "integer" "Calls of this node to others that have no answer yet";
        "lag" "integer" "Messages that the servers' copy farthest behind lacked when this node looked last";
        "copies_behind" "integer" "Copies on the servers that were not current then";
    }
    answered Node: "A node of the cluster" {
        "node" "string" "Its name";
        "state" "joining|up|draining|dead" "Where it stands";
        "address" "string" "Where other nodes reach it";
        "http" "string" "Where clients reach it";
        "owned" "integer" "Parts that it owns";
        "wished" "integer" "Parts that it is to own, as the nodes are now";
        "silent_ms" "integer" "How long ago it renewed its record, as this node saw it";
    }
    // Keys.
    answered Keys: "A page of keys" {
        "keys" "[Key]" "The keys, revoked ones too";
        "next?" "string" "`after` of the next page; absent on the last one";
    }
    answered Key: "What is known of an API key" {
        "id" "string" "Its public id";
        "kind" "operator|ingest|service" "What it covers: everything, a namespace's telemetry, or one service";
        "namespace?" "string" "Of an ingest key: the namespace";
        "service?" "string" "Of a service key: `namespace/name`";
        "label" "string" "For people";
        "created_at" "Time" "When it was made";
        "revoked_at" "Time?" "From when on it counts no more; a time to come if another key takes its place";
        "key?" "string" "The key itself, `twk_…`; only in the answer that makes it";
        "replaces?" "Key" "The key whose place it takes; only in the answer that makes it";
    }
    taken Rotation: "How a key takes the place of another one" {
        "overlap_s?" "0..7776000" "How long the old one goes on to count, in seconds; a day if nothing is said";
    }
    taken KeysOfService: "Keys to revoke" {
        "service" "TwinId" "The service that they cover";
        "issued_before?" "Moment" "Only those made before; now if nothing is said";
    }
    // Access.
    answered Access: "What the service of a twin may do" {
        "profile" "standard|none" "The profile in force";
        "from_profile" "[Grant]" "What the profile gives";
        "grants" "[Grant]" "The twin's own grants; the deepest grant decides, of equals the denial";
    }
    taken Grant: "A right that the service has, or expressly has not" {
        "effect" "allow|deny" "Whether it gives or takes";
        "operations?" "[string]" "Which operations; every one if absent";
        "scope" "string" "On what: `capability:name`; a name that ends in `*` stands for all that begin so";
        "expires_at?" "Time" "From when on it counts no more";
    }
    taken AccessEdit: "A change of what the service may do" {
        "add?" "[Grant]" "Grants to add; one that is there changes nothing";
        "remove?" "[Grant]" "Grants to take away, as they were given";
        "profile?" "standard|none" "The profile from now on";
    }
    taken Rights: "Rights to be ruled on; at most 64" {
        "rights" "[Right]" "The rights";
    }
    taken Right: "An operation on a name of a capability" {
        "operation" "string" "The operation";
        "scope" "string" "`capability:name`";
    }
    answered Checked: "How a right is ruled on" {
        "operation" "string" "The operation";
        "scope" "string" "`capability:name`";
        "allowed" "boolean" "Whether the service has it";
        "rule" "string" "The deciding rule";
    }
    // State.
    answered Store: "A store of the service" {
        "store" "string" "Its name";
        "keys" "integer" "Keys in it";
        "bytes" "integer" "Bytes of keys and values";
    }
    answered StateKeys: "Keys of a store, in order" {
        "keys" "[ListedKey]" "The keys";
        "next" "string?" "`after` of the next page; null on the last one";
    }
    answered ListedKey: "A key" {
        "key" "string" "The key";
        "etag" "integer" "How often it was written by now";
        "expires_at" "Time?" "From when on it is not there any more";
        "bytes" "integer" "Bytes of the value";
    }
    taken StateOperations: "Operations that are done in order, all or none; at most 16" {
        "operations" "[StateOperation]" "The operations";
    }
    taken StateOperation: "One operation on one key" {
        "operation" "set|delete" "What happens to the key";
        "key" "StateKey" "The key";
        "value?" "any" "The value of a `set`: any JSON";
        "etag?" "integer" "The ETag that the key must have";
        "absent?" "boolean" "Whether the key must not be there";
        "ttl_s?" "integer" "How long it is there, in seconds; for ever if absent or 0";
    }
    answered StateWritten: "What a transaction made" {
        "etags" "[integer?]" "The ETag of each operation, null for a deletion";
    }
    // Secrets.
    answered Secret: "Where a secret stands; never its value" {
        "secret" "string" "Its name";
        "version" "integer" "The newest version";
        "changed_at" "Time" "When that was set";
        "previous" "integer?" "The version before, while it is valid";
        "previous_until" "Time?" "Until when it is valid at the latest";
        "instances?" "[SecretUse]" "Which instance said that it uses which version; only of one secret";
    }
    answered SecretSet: "A new version of a secret" {
        "version" "integer" "The version";
    }
    taken SecretUse: "Which version of a secret an instance uses" {
        "instance" "string" "The instance";
        "version" "integer" "The version";
    }
    // Configuration.
    answered Configuration: "What is configured of a service" {
        "version" "integer" "Commits so far; what `If-Match` takes";
        "changed_at" "Time" "When the newest was made";
        "in_sync" "boolean" "Whether every instance that is up has applied it";
        "keys" "ConfiguredKeys" "The keys";
        "instances" "[ConfigurationSaid]" "What instances said";
    }
    answered ConfigurationSaid: "What an instance said of the configuration" {
        "instance" "string" "The instance";
        "version" "integer" "The version it speaks of";
        "error" "string?" "Why it could not be applied; null if it was";
        "at" "Time" "When it said so";
    }
    answered ConfiguredKey: "One key" {
        "value" "string" "Its value";
        "version" "integer" "The version in which it changed last";
        "metadata?" "Strings" "Its metadata";
        "schema?" "object" "What a value must be";
    }
    taken ConfigurationEdit: "Keys that change together" {
        "keys" "ConfigurationEdits" "The keys; at most 15";
    }
    taken KeyEdit: "What a key is from now on" {
        "value" "string" "Its value; JSON if it has a schema";
        "metadata?" "Strings?" "Its metadata; as it was if absent";
        "schema?" "object?" "What its values must be from now on; as it was if absent";
    }
    taken ConfigurationSet: "A version of the configuration" {
        "version" "integer" "The version";
    }
    taken ConfigurationUse: "Which version an instance has applied" {
        "instance" "string" "The instance";
        "version" "integer" "The version";
        "error?" "string?" "Why it could not be applied; absent if it was";
    }
    answered Callers: "Who may invoke a service" {
        "callers" "[CallersEntry]?" "The list; null without one, when whoever was granted it may";
    }
    taken CallersEdit: "Who may invoke a service" {
        "callers" "[CallersEntry]" "The list, at most 32; an empty one lets nobody in";
    }
    taken CallersEntry: "A caller, and what it may invoke" {
        "service" "string" "namespace/name; a '*' at the end stands for any rest";
        "method" "string" "Method and path, such as 'POST /charge'; a '*' at the end stands for any rest";
    }
    answered Endpoint: "Where an application is" {
        "instance" "string" "Which instance of the service it is";
        "url" "string" "http://HOST:PORT";
        "protocol" "http|grpc" "What it speaks";
    }
    taken NewEndpoint: "Where an application is" {
        "url" "string" "http://HOST:PORT and nothing else";
        "protocol?" "http|grpc" "What it speaks; http if absent";
    }
    answered CapabilityRequest: "What a capability can be asked" {
        "capability" "string" "The capability";
        "request" "string" "The request, by its name within the capability";
        "operation" "string" "What grants, tokens and metrics know it by";
        "creates" "boolean" "Whether a twin may come into being with it";
    }
    answered Component: "A name of a capability" {
        "name" "string" "The name";
        "kind" "secrets|configuration|pubsub" "What it stands for";
    }
    taken NewComponent: "What a name stands for" {
        "kind" "secrets|configuration|pubsub" "What it stands for";
    }
    // Topics.
    taken Replay: "Which messages come again" {
        "component" "string" "The name under which the service knows its topics";
        "topic" "string" "The topic";
        "from" "ReplayFrom" "The first of them";
    }
    answered Replayed: "Which messages come again" {
        "from" "integer" "The number of the first";
    }
    answered Subscription: "Where in the application a topic's messages go" {
        "name" "string" "Its name";
        "component" "string" "The name under which the service knows its topics";
        "topic" "string" "The topic";
        "path" "string" "The application's path";
        "dead_letter" "string?" "The topic for what cannot be delivered";
        "metadata" "Strings" "Its settings";
    }
    taken NewSubscription: "Where in the application a topic's messages go" {
        "component" "string" "The name under which the service knows its topics; at most 48 bytes";
        "topic" "string" "The topic; at most 128 bytes";
        "path" "string" "The application's path, which begins with '/'; at most 256 bytes";
        "dead_letter?" "string?" "The topic for what cannot be delivered";
        "metadata?" "Strings" "Its settings; names and values have at most 512 bytes";
    }
}
