//! Generates messages, clients and operations from `proto/`, with no protoc needed.
//!
//! Messages of services that have REST as well are read and written as JSON. What is neither `optional` nor `repeated` must be there, and
//! unknown fields are refused. A message with a field marked `debug_redact` shows nothing of itself in `Debug`.

#[path = "build/openapi.rs"]
mod openapi;
#[path = "build/operations.rs"]
mod operations;

use std::error::Error;
use std::path::{Path, PathBuf};

use prost_reflect::{DescriptorPool, Value};
use tonic_prost_build::Config;

/// Packages whose operations are REST as well: the module's name, and its file.
const PACKAGES: &[(&str, &str)] = &[
    ("mcias", "mcias.proto"),
    ("mcat", "mcat.proto"),
    ("audit", "metacircular/audit.proto"),
    ("policy", "metacircular/policy.proto"),
];

/// Messages that leave out empty lists: where a token is not active, nothing else is said (RFC 7662, section 2.2).
const OMIT_EMPTY: &[&str] = &["metacircular.mcias.v1.Introspection"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let mcproxy = protox::compile(["proto/mcproxy.proto"], ["proto"])?;
    tonic_prost_build::configure().type_attribute(".", "#[derive(serde::Serialize)]").compile_fds(mcproxy)?;
    for (module, file) in PACKAGES {
        package(module, file, &out)?;
    }
    Ok(())
}

fn package(module: &str, file: &str, out: &Path) -> Result<(), Box<dyn Error>> {
    // Options of our own are kept by the pool and by what it encodes, not by prost's types.
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true).open_file(file)?;
    let pool = compiler.descriptor_pool();
    let mut descriptors = compiler.file_descriptor_set();
    // With the packages whose messages this one uses: prost looks at them, and their own turn writes them.
    descriptors.file.retain(|file| file.package().starts_with("metacircular."));
    let package = descriptors.file.last().map(|file| file.package().to_owned()).unwrap_or_default();

    let mut config = Config::new();
    for (other, _) in PACKAGES.iter().filter(|(other, _)| *other != module) {
        config.extern_path(format!(".metacircular.{other}.v1"), format!("crate::{other}"));
    }
    config.type_attribute(".", "#[derive(serde::Serialize, serde::Deserialize)]");
    config.type_attribute(".", "#[serde(deny_unknown_fields)]");
    let mut redacted = Vec::new();
    for message in pool.all_messages().filter(|message| message.package_name() == package) {
        for field in message.fields() {
            let path = format!(".{}", field.full_name());
            if field.is_list() && OMIT_EMPTY.contains(&message.full_name()) {
                config.field_attribute(&path, "#[serde(default, skip_serializing_if = \"Vec::is_empty\")]");
            } else if field.is_list() {
                config.field_attribute(&path, "#[serde(default)]");
            } else if field.supports_presence() {
                config.field_attribute(&path, "#[serde(default, skip_serializing_if = \"Option::is_none\")]");
            }
        }
        if message.fields().any(|field| is_redacted(&field)) {
            redacted.push(message.name().to_owned());
        }
    }
    config.skip_debug(redacted.iter().map(|name| format!(".{package}.{name}")));
    tonic_prost_build::configure().build_server(false).compile_fds_with_config(descriptors, config)?;

    std::fs::write(out.join(format!("{module}.redacted.rs")), redacted_debug(&redacted))?;
    std::fs::write(out.join(format!("{module}.operations.rs")), operations::statics(&pool, &package)?)?;
    std::fs::write(out.join(format!("{module}.macro.rs")), operations::lines(&pool, &package, module)?)?;
    std::fs::write(
        out.join(format!("{module}.schemas.json")),
        openapi::schemas(&pool, &package).to_string(),
    )?;
    // What reflection answers: with our options and what they import, without comments.
    let mut reflected = protox::Compiler::new(["proto"])?;
    reflected.include_source_info(false).include_imports(true).open_file(file)?;
    std::fs::write(out.join(format!("{module}.bin")), reflected.encode_file_descriptor_set())?;
    Ok(())
}

/// Whether a field holds a secret: `[debug_redact = true]`.
fn is_redacted(field: &prost_reflect::FieldDescriptor) -> bool {
    let options = field.options();
    options.get_field_by_name("debug_redact").is_some_and(|value| *value == Value::Bool(true))
}

fn redacted_debug(messages: &[String]) -> String {
    let one = |name: &String| {
        format!(
            "impl ::std::fmt::Debug for {name} {{\n    fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {{\n        \
             f.write_str(\"{name}(redacted)\")\n    }}\n}}\n"
        )
    };
    messages.iter().map(one).collect()
}

/// The comment above something in a `.proto`, as one text.
fn comment(pool: &DescriptorPool, file: &str, path: &[i32]) -> String {
    let file = pool.get_file_by_name(file);
    let info = file.as_ref().and_then(|file| file.file_descriptor_proto().source_code_info.as_ref());
    let location = info.and_then(|info| info.location.iter().find(|location| location.path == path));
    let text = location.map_or("", |location| location.leading_comments());
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}
