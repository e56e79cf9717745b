//! Generates messages, clients and servers from `proto/`, with no protoc needed.
//!
//! MCIAS's messages are the bodies of its REST API too: they are read and written as JSON and described in its OpenAPI
//! document, from the same comments. What is not `optional` or `repeated` must be there, and what is unknown is refused.

use prost::Message as _;
use prost_types::field_descriptor_proto::Label;
use tonic_prost_build::Config;

/// Messages that hold secrets: `Debug` must not show them (see `src/mcias/secrets.rs`).
const SECRET: &[&str] = &[
    "ChangePasswordRequest",
    "ConfirmTotpRequest",
    "GetLinkRequest",
    "IntrospectRequest",
    "IssuedLink",
    "IssuedToken",
    "LoginReply",
    "LoginRequest",
    "RecoveryCodes",
    "RedeemLinkRequest",
    "TotpEnrolment",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    let mcproxy = protox::compile(["proto/mcproxy.proto"], ["proto"])?;
    tonic_prost_build::configure().type_attribute(".", "#[derive(serde::Serialize)]").compile_fds(mcproxy)?;
    let mcias = protox::compile(["proto/mcias.proto"], ["proto"])?;
    let mut config = Config::new();
    config.type_attribute(".", "#[derive(serde::Serialize, serde::Deserialize, utoipa::ToSchema)]");
    config.type_attribute(".", "#[serde(deny_unknown_fields)]");
    for query in ["ListAccountsRequest", "ListAuditRequest"] {
        config.type_attribute(format!(".metacircular.mcias.v1.{query}"), "#[derive(utoipa::IntoParams)]");
        config.type_attribute(
            format!(".metacircular.mcias.v1.{query}"),
            "#[into_params(parameter_in = Query)]",
        );
    }
    for file in &mcias.file {
        for message in &file.message_type {
            for field in &message.field {
                let path = format!(".{}.{}.{}", file.package(), message.name(), field.name());
                if message.name() == "Introspection" && field.label() == Label::Repeated {
                    // Where a token is not active, nothing else is said (RFC 7662, section 2.2).
                    let skip = "#[serde(default, skip_serializing_if = \"Vec::is_empty\")]";
                    config.field_attribute(&path, skip);
                } else if field.label() == Label::Repeated {
                    config.field_attribute(&path, "#[serde(default)]");
                } else if field.proto3_optional() {
                    config.field_attribute(&path, "#[serde(skip_serializing_if = \"Option::is_none\")]");
                }
            }
        }
    }
    config.skip_debug(SECRET.iter().map(|name| format!(".metacircular.mcias.v1.{name}")));
    // What a client asks of the server about itself.
    std::fs::write(out.join("mcias.bin"), mcias.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds_with_config(mcias, config)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
