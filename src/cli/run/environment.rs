//! What the child finds in its environment: the variables that SDKs of Dapr and of OpenTelemetry read.

use super::flags::Plan;
use crate::cli::client::segment;

/// Where the door is; both ports speak both protocols.
const HOST: &str = "127.0.0.1";

/// Never for the child: it speaks with its own key.
pub(super) const REMOVED: [&str; 2] = ["TWIN_KEY", "TWIN_TOKEN"];

/// The variables of a service that speaks with `token` through its door on these ports (HTTP, gRPC).
pub(super) fn variables(plan: &Plan, [http, grpc]: [u16; 2], token: &str) -> Vec<(&'static str, String)> {
    let (service, name) = (&plan.service, plan.service.name().to_owned());
    let mut variables = vec![
        ("APP_ID", name.clone()),
        ("DAPR_APP_ID", name.clone()),
        ("DAPR_RUNTIME_HOST", HOST.to_owned()),
        ("DAPR_HTTP_PORT", http.to_string()),
        ("DAPR_GRPC_PORT", grpc.to_string()),
        ("DAPR_HTTP_ENDPOINT", format!("http://{HOST}:{http}")),
        // With its scheme: SDKs for .NET take nothing else, the others take both.
        ("DAPR_GRPC_ENDPOINT", format!("http://{HOST}:{grpc}")),
        ("DAPR_API_TOKEN", token.to_owned()),
        ("NAMESPACE", service.namespace().to_owned()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{HOST}:{http}")),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", plan.telemetry.clone()),
        ("OTEL_EXPORTER_OTLP_HEADERS", format!("authorization=Bearer%20{}", segment(token))),
        ("OTEL_SERVICE_NAME", name),
        ("OTEL_RESOURCE_ATTRIBUTES", attributes(plan)),
    ];
    if let Some(app) = &plan.app {
        variables.push(("APP_PORT", app.port.to_string()));
        variables.push(("APP_PROTOCOL", app.protocol.as_str().to_owned()));
    }
    variables
}

/// What was stated before, and which twin and instance this is. Values are escaped as W3C Baggage has them.
fn attributes(plan: &Plan) -> String {
    const OURS: [&str; 3] = ["service.namespace", "service.name", "service.instance.id"];
    let is_ours = |pair: &&str| OURS.contains(&pair.split('=').next().unwrap_or_default().trim());
    let stated = plan.attributes.split(',').filter(|pair| !pair.trim().is_empty() && !is_ours(pair));
    let mut pairs: Vec<String> = stated.map(str::to_owned).collect();
    pairs.push(format!("service.namespace={}", segment(plan.service.namespace())));
    pairs.push(format!("service.instance.id={}", segment(&plan.instance)));
    pairs.join(",")
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use super::*;
    use crate::model::ServiceId;

    #[test]
    fn a_service_finds_its_door_its_key_and_its_name() {
        let plan = Plan {
            service: ServiceId::parse("shop/orders").unwrap(),
            instance: "pod 7".into(),
            version: None,
            app: None,
            check: None,
            app_token: None,
            ports: [0, 0],
            handlers: None,
            grace: Duration::ZERO,
            telemetry: "grpc".into(),
            attributes: "service.version=2, service.namespace=wrong,".into(),
            command: Vec::new(),
        };
        let found: BTreeMap<_, _> = variables(&plan, [3500, 50001], "twk_a_b=").into_iter().collect();
        assert_eq!((&*found["DAPR_HTTP_PORT"], &*found["DAPR_GRPC_PORT"]), ("3500", "50001"));
        assert_eq!((&*found["APP_ID"], &*found["OTEL_SERVICE_NAME"]), ("orders", "orders"));
        assert_eq!(found["DAPR_API_TOKEN"], "twk_a_b=");
        assert_eq!(found["OTEL_EXPORTER_OTLP_HEADERS"], "authorization=Bearer%20twk_a_b%3D");
        let attributes = "service.version=2,service.namespace=shop,service.instance.id=pod%207";
        assert_eq!(found["OTEL_RESOURCE_ATTRIBUTES"], attributes);
        assert_eq!(found["OTEL_EXPORTER_OTLP_PROTOCOL"], "grpc", "as it was");
        assert!(!found.contains_key("APP_PORT"), "where it listens is not known");
    }
}
