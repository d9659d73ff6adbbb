use std::collections::BTreeSet;

use super::*;

#[test]
fn every_route_is_described_and_every_description_served() {
    let served: BTreeSet<&str> = routes().iter().map(|(path, _)| *path).collect();
    let described: BTreeSet<&str> = openapi::OPERATIONS.iter().map(|operation| operation.path).collect();
    assert_eq!(served, described);
    let ids: BTreeSet<&str> = openapi::OPERATIONS.iter().map(|operation| operation.id).collect();
    assert_eq!(ids.len(), openapi::OPERATIONS.len(), "operation ids are unique");
}

#[test]
fn the_description_names_every_parameter_of_a_path() {
    let document = openapi::build();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let parameters = operation["parameters"].as_array().unwrap();
            let named = parameters.iter().filter(|parameter| parameter["in"] == "path").count();
            assert_eq!(named, path.matches('{').count(), "{method} {path}");
            assert!(operation["responses"].as_object().unwrap().len() >= 2, "{method} {path}");
        }
    }
}
