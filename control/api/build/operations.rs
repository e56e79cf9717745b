//! Operations, from the options of their rpcs: a static each, and a macro line each.

use std::error::Error;
use std::fmt::Write as _;

use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MethodDescriptor, Value};

use crate::{comment, openapi};

/// An rpc's options, read.
pub(crate) struct Options {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) need: String,
    fresh: bool,
    action: String,
    target: String,
    pub(crate) created: String,
    max_body_bytes: u32,
    timeout_ms: u32,
    max_age_s: u32,
    pub(crate) form: bool,
}

impl Options {
    /// Reads them.
    ///
    /// # Errors
    /// An rpc does not say who may call it, or says something that cannot be.
    pub(crate) fn of(method: &MethodDescriptor) -> Result<Self, Box<dyn Error>> {
        let wrong = |what: &str| format!("{}: {what}", method.full_name());
        let pool = method.parent_pool();
        let extension = pool
            .get_extension_by_name("metacircular.operation")
            .ok_or("metacircular/options.proto is missing")?;
        let options = method.options();
        let value = options.get_extension(&extension);
        let message = value.as_message().ok_or_else(|| wrong("has no option (metacircular.operation)"))?;
        let text = |name: &str| text(message, name);
        let number = |name: &str| field(message, name).as_u32().unwrap_or(0);
        let flag = |name: &str| field(message, name).as_bool().unwrap_or(false);
        let need = match field(message, "need").as_enum_number().unwrap_or(0) {
            1 => "Public",
            2 => "OptionalToken",
            3 => "Token",
            4 => "Account",
            5 => "Person",
            6 => "Service",
            7 => "Admin",
            _ => return Err(wrong("does not say who may call it: `need`").into()),
        };
        let read = Self {
            method: text("method"),
            path: text("path"),
            need: need.to_owned(),
            fresh: flag("fresh"),
            action: text("action"),
            target: text("target"),
            created: text("created"),
            max_body_bytes: number("max_body_bytes"),
            timeout_ms: number("timeout_ms"),
            max_age_s: number("max_age_s"),
            form: flag("form"),
        };
        if read.action.is_empty() {
            return Err(wrong("has no `action`").into());
        }
        if read.method.is_empty() != read.path.is_empty() {
            return Err(wrong("has a method without a path, or a path without a method").into());
        }
        let input = method.input();
        let named = parameters(&read.path)
            .into_iter()
            .chain(Some(read.target.clone()).filter(|name| !name.is_empty()));
        for name in named {
            if input.get_field_by_name(&name).is_none() {
                return Err(wrong(&format!("names `{name}`, which {} has not", input.name())).into());
            }
        }
        if input.oneofs().any(|oneof| !oneof.is_synthetic()) {
            return Err(wrong("has a oneof, which JSON cannot tell apart").into());
        }
        Ok(read)
    }

    /// Whether the fields that are not in the path are in the query.
    pub(crate) fn uses_query(&self) -> bool {
        matches!(self.method.as_str(), "GET" | "DELETE")
    }
}

fn field(message: &DynamicMessage, name: &str) -> Value {
    message.get_field_by_name(name).map_or(Value::Bool(false), std::borrow::Cow::into_owned)
}

fn text(message: &DynamicMessage, name: &str) -> String {
    field(message, name).as_str().unwrap_or_default().to_owned()
}

/// The names in braces in a path.
pub(crate) fn parameters(path: &str) -> Vec<String> {
    let parts = path.split('{').skip(1).filter_map(|part| part.split('}').next());
    parts.map(|name| name.trim_end_matches('*').to_owned()).collect()
}

/// All operations as statics.
///
/// # Errors
/// The options of one make no sense.
pub(crate) fn statics(pool: &DescriptorPool, package: &str) -> Result<String, Box<dyn Error>> {
    let mut code = String::new();
    let mut all = Vec::new();
    for method in methods(pool, package) {
        let options = Options::of(&method)?;
        let name = constant(method.name());
        writeln!(code, "/// {}", comment(pool, method.parent_file().name(), method.path()))?;
        writeln!(code, "pub static {name}: Operation = Operation {{")?;
        writeln!(
            code,
            "    name: {:?},\n    grpc_service: {:?},",
            method.name(),
            method.parent_service().full_name()
        )?;
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        writeln!(code, "    grpc_path: {path:?},\n    rest: {},", rest(pool, &method, &options)?)?;
        writeln!(code, "    need: Need::{},\n    fresh: {},", options.need, options.fresh)?;
        writeln!(code, "    action: {:?},\n    target: {:?},", options.action, some(&options.target))?;
        writeln!(
            code,
            "    max_body_bytes: {:?},",
            (options.max_body_bytes > 0).then_some(options.max_body_bytes)
        )?;
        let timeout = match options.timeout_ms {
            0 => "None".to_owned(),
            ms => format!("Some(std::time::Duration::from_millis({ms}))"),
        };
        writeln!(code, "    timeout: {timeout},\n}};\n")?;
        all.push(format!("&{name}"));
    }
    writeln!(code, "/// All of this package.\npub static ALL: &[&Operation] = &[{}];", all.join(", "))?;
    Ok(code)
}

fn rest(
    pool: &DescriptorPool,
    method: &MethodDescriptor,
    options: &Options,
) -> Result<String, Box<dyn Error>> {
    if options.method.is_empty() {
        return Ok("None".to_owned());
    }
    let variant = match options.method.as_str() {
        "GET" => "Get",
        "POST" => "Post",
        "PUT" => "Put",
        "DELETE" => "Delete",
        other => return Err(format!("{}: method `{other}`", method.full_name()).into()),
    };
    let in_path = parameters(&options.path);
    let input = method.input();
    let mut parameters = String::new();
    for field in
        input.fields().filter(|field| options.uses_query() || in_path.contains(&field.name().to_owned()))
    {
        let kind = kind(&field)
            .ok_or_else(|| format!("{}: `{}` cannot be a parameter", method.full_name(), field.name()))?;
        write!(parameters, "Parameter {{ name: {:?}, kind: Kind::{kind} }}, ", field.name())?;
    }
    let body = match () {
        () if options.uses_query() => "None".to_owned(),
        () if options.form => {
            let names: Vec<_> = input.fields().map(|field| field.name().to_owned()).collect();
            format!("Form(&{names:?})")
        }
        () => "Json".to_owned(),
    };
    let has_revision =
        |message: &prost_reflect::MessageDescriptor| message.get_field_by_name("revision").is_some();
    Ok(format!(
        "Some(Rest {{ method: Method::{variant}, path: {:?}, parameters: &[{parameters}], body: Body::{body}, created: {:?}, \
         takes_revision: {}, has_revision: {}, max_age_s: {}, openapi: {:?} }})",
        options.path,
        some(&options.created),
        variant == "Put" && has_revision(&input),
        has_revision(&method.output()),
        options.max_age_s,
        openapi::operation(pool, method, options).to_string(),
    ))
}

fn kind(field: &FieldDescriptor) -> Option<&'static str> {
    Some(match field.kind() {
        Kind::String if field.is_list() => "Texts",
        _ if field.is_list() => return None,
        Kind::String => "Text",
        Kind::Bool => "Boolean",
        Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 => "Integer",
        _ => return None,
    })
}

/// A macro with a line for each operation: for a route table, and for calls within the process.
///
/// # Errors
/// The options of one make no sense.
pub(crate) fn lines(pool: &DescriptorPool, package: &str, module: &str) -> Result<String, Box<dyn Error>> {
    let (mut table, mut calls) = (String::new(), String::new());
    for method in methods(pool, package) {
        let options = Options::of(&method)?;
        let (constant, function) = (constant(method.name()), snake(method.name()));
        let (request, response) = (method.input().name().to_owned(), method.output().name().to_owned());
        let message = |name: &str| format!("$crate::{module}::{name}");
        let target = match options.target.as_str() {
            "" => "String::new()".to_owned(),
            field => format!("request.{field}.clone()"),
        };
        let binding = if options.target.is_empty() { "_request" } else { "request" };
        let kind = if method.is_server_streaming() { "stream" } else { "unary" };
        writeln!(
            table,
            "        table.{kind}(&$crate::{module}::operations::{constant}, |{binding}: &{}| {target}, \
             |service: ::std::sync::Arc<$service>, permit, request| async move {{ service.{function}(permit, request).await }});",
            message(&request),
        )?;
        if kind == "stream" {
            continue;
        }
        let doc = comment(pool, method.parent_file().name(), method.path());
        writeln!(
            calls,
            "            #[doc = {doc:?}]\n            pub(crate) async fn {function}(&self, request: {}) -> Result<{}, $problem> {{\n                \
             let target = {target};\n                \
             let permit = self.authorize(&$crate::{module}::operations::{constant}, target).await?;\n                \
             self.service().{function}(permit, request).await\n            }}",
            message(&request),
            message(&response),
        )?;
    }
    Ok(format!(
        "/// All operations of this package, a line each: `(table TABLE, SERVICE)` registers them in a route table; `(calls CALLS, PROBLEM)` makes \
         each a method of `CALLS`,\n/// which authorises by `authorize(operation, target)` and calls `service()`.\n\
         #[macro_export]\nmacro_rules! {module}_operations {{\n    (table $table:expr, $service:ty) => {{{{\n        let table = $table;\n{table}    \
         }}}};\n    (calls $calls:ty, $problem:ty) => {{\n        impl $calls {{\n{calls}        }}\n    }};\n}}\n"
    ))
}

fn methods<'a>(pool: &'a DescriptorPool, package: &'a str) -> impl Iterator<Item = MethodDescriptor> + 'a {
    let services = pool.services().filter(move |service| service.package_name() == package);
    services.flat_map(|service| service.methods().collect::<Vec<_>>())
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// `CreateAccount` as `create_account`.
pub(crate) fn snake(name: &str) -> String {
    let mut text = String::new();
    for (at, letter) in name.chars().enumerate() {
        if letter.is_ascii_uppercase() && at > 0 {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

/// `CreateAccount` as `CREATE_ACCOUNT`.
fn constant(name: &str) -> String {
    snake(name).to_uppercase()
}
