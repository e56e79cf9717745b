//! The OpenAPI document (3.1) of a service, of the parts that the build script wrote for each operation and message.

use mc_api::operation::Operation;
use serde_json::{Map, Value, json};

use crate::problem;

/// The document of these operations. `about`: title, version and description; `schemas`: messages of each package, as JSON.
///
/// # Panics
/// The build script wrote something else than JSON.
#[must_use]
pub fn openapi<'a>(
    operations: impl IntoIterator<Item = &'a &'static Operation>,
    schemas: &[&str],
    about: &Value,
) -> Value {
    let mut paths = Map::new();
    for rest in operations.into_iter().filter_map(|operation| operation.rest.as_ref()) {
        let operation: Value = serde_json::from_str(rest.openapi).expect("the build script writes JSON");
        let path = paths.entry(rest.path.replace("*}", "}")).or_insert_with(|| json!({}));
        path[rest.method.as_str().to_lowercase()] = operation;
    }
    let mut all = Map::new();
    for package in schemas {
        let package: Map<String, Value> =
            serde_json::from_str(package).expect("the build script writes JSON");
        all.extend(package);
    }
    all.insert("Problem".to_owned(), problem::schema());
    json!({
        "openapi": "3.1.0",
        "info": about,
        "paths": paths,
        "components": {
            "schemas": all,
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" } },
        },
        "security": [{ "token": [] }],
    })
}
