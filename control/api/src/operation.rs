//! What an operation is: how gRPC and REST reach it, who may call it, and what the audit log calls it.
//!
//! Operations are stated at their rpc in the `.proto` (see `proto/metacircular/options.proto`); the build script writes them out as statics
//! and as one macro line each.

use std::time::Duration;

/// An rpc, with everything that follows from its options.
#[derive(Debug)]
pub struct Operation {
    /// The rpc's name: `CreateAccount`.
    pub name: &'static str,
    /// The gRPC service: `metacircular.mcias.v1.Accounts`.
    pub grpc_service: &'static str,
    /// The gRPC path: `/metacircular.mcias.v1.Accounts/CreateAccount`.
    pub grpc_path: &'static str,
    /// How REST reaches it; `None`: by gRPC only.
    pub rest: Option<Rest>,
    /// Who may call it.
    pub need: Need,
    /// Whether the login must be recent.
    pub fresh: bool,
    /// Its name in the audit log: `account.create`.
    pub action: &'static str,
    /// The field that names what it acts on.
    pub target: Option<&'static str>,
    /// Largest body in bytes; `None`: the server's limit.
    pub max_body_bytes: Option<usize>,
    /// Time for the whole request; `None`: the server's limit.
    pub timeout: Option<Duration>,
}

/// How REST reaches an operation.
#[derive(Debug)]
pub struct Rest {
    /// The method.
    pub method: Method,
    /// The path with its parameters: `/v1/accounts/{name}`.
    pub path: &'static str,
    /// Request fields that may be in the path or in the query, with their types.
    pub parameters: &'static [Parameter],
    /// The form of the body.
    pub body: Body,
    /// The path of what it creates, of fields of path and response: `/v1/accounts/{name}`.
    pub created: Option<&'static str>,
    /// Whether the request has a field `revision`, which `If-Match` may carry instead.
    pub takes_revision: bool,
    /// Whether the response has a field `revision`, which is its `ETag`.
    pub has_revision: bool,
    /// Seconds for which anybody may cache the response; 0: nobody.
    pub max_age_s: u32,
    /// Its part of the OpenAPI document: an operation object as JSON.
    pub openapi: &'static str,
}

/// Methods of REST that operations use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Creates, or does something else than the others.
    Post,
    /// Replaces.
    Put,
    /// Deletes.
    Delete,
}

/// The form of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// It has none.
    None,
    /// A JSON object.
    Json,
    /// `application/x-www-form-urlencoded`, with these fields. Others are ignored.
    Form(&'static [&'static str]),
}

/// A request field that may be in the path or in the query.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
}

/// The type of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// Text; several times for several.
    Texts,
}

/// Who may call an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Anybody, without a token.
    Public,
    /// Anybody; a token that is sent must be valid.
    OptionalToken,
    /// Anybody with a valid token, even where the login policy denies access.
    Token,
    /// An account that the login policy lets use this service.
    Account,
    /// The same, where it is a person's.
    Person,
    /// A system account, in the name of its service.
    Service,
    /// A person with the role `admin`.
    Admin,
}

impl Method {
    /// As HTTP writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}
