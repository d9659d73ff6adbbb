use serde_reflection::{Samples, Tracer, TracerConfig};

use super::*;
use crate::{
    model::{grant::Effect, scope::Operations},
    twin::{
        Snapshot,
        service::{
            Farewell,
            access::Profile,
            message::Target,
            view::{Presence, Status},
        },
    },
};

#[test]
fn the_fields_that_records_are_checked_by_are_the_fields() {
    // A scope is checked as it is read.
    let mut tracer = Tracer::new(
        TracerConfig::default().default_string_value("state:*".to_owned()).default_borrowed_str_value("state:*"),
    );
    let samples = Samples::new();
    tracer.trace_type::<Presence>(&samples).unwrap();
    tracer.trace_type::<Status>(&samples).unwrap();
    tracer.trace_type::<CommandState>(&samples).unwrap();
    tracer.trace_type::<Farewell>(&samples).unwrap();
    tracer.trace_type::<Target>(&samples).unwrap();
    tracer.trace_type::<Profile>(&samples).unwrap();
    tracer.trace_type::<Effect>(&samples).unwrap();
    tracer.trace_type::<Operations>(&samples).unwrap();
    tracer.trace_type::<Service>(&samples).unwrap();
    tracer.trace_type::<Change>(&samples).unwrap();
    let registry = tracer.registry().unwrap();
    let lines: Vec<String> = registry.iter().map(|(name, format)| format!("{name} {format:?}")).collect();
    let fields = lines.join("\n");
    let fields = fields.replace("Named { name: ", "").replace(", value: ", ": ").replace(" }", "");
    assert_eq!(
        fields.trim(),
        Service::FIELDS.trim(),
        "the state's fields changed: raise Snapshot::SCHEMA, write the migration, and put the left side into fields.txt"
    );
}

#[test]
fn an_untouched_twin_is_small() {
    let service = Service::create("shop/orders");
    let resident = size_of::<Service>() + service.heap_bytes();
    assert!(resident <= 1024, "{resident} bytes");
}
