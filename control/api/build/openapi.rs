//! OpenAPI 3.1, from descriptors and their comments: an operation object for each rpc, a schema for each message.

use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};
use serde_json::{Map, Value, json};

use crate::comment;
use crate::operations::{Options, parameters, snake};

/// An rpc as an operation object (OpenAPI 3.1, section 4.8.10).
pub(crate) fn operation(pool: &DescriptorPool, method: &MethodDescriptor, options: &Options) -> Value {
    let text = comment(pool, method.parent_file().name(), method.path());
    let in_path = parameters(&options.path);
    let input = method.input();
    let is_in_path = |field: &FieldDescriptor| in_path.iter().any(|name| name == field.name());
    let listed = input.fields().filter(|field| is_in_path(field) || options.uses_query());
    let listed: Vec<Value> = listed
        .map(|field| {
            let place = if is_in_path(&field) { "path" } else { "query" };
            let mut parameter = json!({
                "name": field.name(), "in": place, "required": is_in_path(&field) || is_required(&field), "schema": typed(&field),
            });
            describe(&mut parameter, &field_comment(pool, &field));
            parameter
        })
        .collect();
    let tag = snake(method.parent_service().name()).replace('_', "-");
    let mut operation = json!({ "operationId": snake(method.name()), "tags": [tag], "responses": responses(method, options) });
    describe(&mut operation, &text);
    if !listed.is_empty() {
        operation["parameters"] = listed.into();
    }
    if !options.uses_query() {
        let rest: Vec<FieldDescriptor> = input.fields().filter(|field| !is_in_path(field)).collect();
        if !rest.is_empty() {
            let schema = if in_path.is_empty() { reference(&input) } else { object(pool, &rest) };
            let kind = if options.form { "application/x-www-form-urlencoded" } else { "application/json" };
            let required = rest.iter().any(is_required);
            operation["requestBody"] =
                json!({ "required": required, "content": { kind: { "schema": schema } } });
        }
    }
    match options.need.as_str() {
        "Public" => operation["security"] = json!([{}]),
        "OptionalToken" => operation["security"] = json!([{}, { "token": [] }]),
        _ => {}
    }
    operation
}

fn responses(method: &MethodDescriptor, options: &Options) -> Value {
    let schema = reference(&method.output());
    let problem = json!({
        "description": "The request was refused or failed: see `reason`, `detail` and `field`.",
        "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
    });
    if method.is_server_streaming() {
        let content = json!({ "application/x-ndjson": { "schema": schema } });
        return json!({ "200": { "description": "One object per line.", "content": content }, "default": problem });
    }
    let content = json!({ "application/json": { "schema": schema } });
    if options.created.is_empty() {
        return json!({ "200": { "description": "OK", "content": content }, "default": problem });
    }
    let location =
        json!({ "Location": { "description": "Path of what was created.", "schema": { "type": "string" } } });
    json!({ "201": { "description": "Created", "headers": location, "content": content }, "default": problem })
}

/// All messages of a package as schemas, by name.
pub(crate) fn schemas(pool: &DescriptorPool, package: &str) -> Value {
    let messages = pool.all_messages().filter(|message| message.package_name() == package);
    let schema = |message: MessageDescriptor| {
        let fields: Vec<_> = message.fields().collect();
        let mut schema = object(pool, &fields);
        describe(&mut schema, &comment(pool, message.parent_file().name(), message.path()));
        (message.name().to_owned(), schema)
    };
    Value::Object(messages.map(schema).collect())
}

fn object(pool: &DescriptorPool, fields: &[FieldDescriptor]) -> Value {
    let property = |field: &FieldDescriptor| {
        let mut schema = typed(field);
        describe(&mut schema, &field_comment(pool, field));
        (field.name().to_owned(), schema)
    };
    let properties: Map<String, Value> = fields.iter().map(property).collect();
    let required: Vec<&str> =
        fields.iter().filter(|field| is_required(field)).map(FieldDescriptor::name).collect();
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn is_required(field: &FieldDescriptor) -> bool {
    !field.is_list() && !field.supports_presence()
}

fn typed(field: &FieldDescriptor) -> Value {
    let one = match field.kind() {
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Int32 | Kind::Sint32 => json!({ "type": "integer", "format": "int32" }),
        // What JSON numbers hold exactly (RFC 8259, section 6).
        Kind::Int64 | Kind::Sint64 => {
            json!({ "type": "integer", "format": "int64", "minimum": -9_007_199_254_740_991_i64, "maximum": 9_007_199_254_740_991_i64 })
        }
        Kind::Uint32 => json!({ "type": "integer", "format": "int64", "minimum": 0, "maximum": u32::MAX }),
        Kind::Uint64 => {
            json!({ "type": "integer", "format": "int64", "minimum": 0, "maximum": 9_007_199_254_740_991_i64 })
        }
        Kind::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
        Kind::Message(message) => reference(&message),
        _ => json!({ "type": "string" }),
    };
    if field.is_list() { json!({ "type": "array", "items": one }) } else { one }
}

fn reference(message: &MessageDescriptor) -> Value {
    json!({ "$ref": format!("#/components/schemas/{}", message.name()) })
}

fn field_comment(pool: &DescriptorPool, field: &FieldDescriptor) -> String {
    comment(pool, field.parent_message().parent_file().name(), field.path())
}

fn describe(object: &mut Value, text: &str) {
    if !text.is_empty() {
        object["description"] = text.into();
    }
}
