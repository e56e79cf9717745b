//! Policies of a route that speaks HTTP: what is asked of each request, and what is changed about it.
//!
//! A route's policies are looked at in their order. One that refuses or redirects ends the request; the others
//! add up. [`crate::policy`] decides by them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{is_default, is_false};
use crate::content_coding::Coding;

/// One policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Unique in its route, and its label in metrics: 1 to 63 of `a-z`, `0-9`, `-`.
    pub name: String,
    /// Only counts what it would do.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Only for this path and what is below it: `/api` is for `/api` and `/api/users`, not for `/apiary`.
    #[serde(default = "default_path", skip_serializing_if = "is_default_path")]
    pub path: String,
    /// What it does.
    #[serde(flatten)]
    pub rule: Rule,
}

/// What a policy does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Requests without this field are refused (403).
    RequireHeader(FieldMatch),
    /// Requests with this field are refused (403).
    BlockHeader(FieldMatch),
    /// Requests whose `User-Agent` contains this text, in any case, are refused (403).
    BlockUserAgent(String),
    /// Requests of other methods are refused (405).
    Methods(Vec<String>),
    /// Requests for other paths than these and what is below them are refused (404).
    Paths(Vec<String>),
    /// The beginning of the path is replaced.
    Rewrite(Rewrite),
    /// The client is sent elsewhere.
    Redirect(Redirect),
    /// Clients that ask faster are refused (429).
    Rate(RequestRate),
    /// Requests with larger bodies are refused (413): bytes, instead of the route's `max_body_bytes`.
    MaxBodyBytes(u64),
    /// Fields of the request are changed before the backend sees it.
    RequestHeaders(EditFields),
    /// Fields of the response are changed before the client sees it; those of MC-Proxy's own, too.
    ResponseHeaders(EditFields),
    /// Browsers are told to come by TLS alone (RFC 6797).
    Hsts(Hsts),
    /// Responses are compressed where the backend did not.
    Compress(Compress),
    /// Answers of MC-Proxy itself have this page.
    ErrorPage(ErrorPage),
    /// A share of the requests is sent to another backend, too, whose answer nobody sees.
    Mirror(Mirror),
}

/// A field of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldMatch {
    /// Its name, in any case.
    pub name: String,
    /// Text that its value contains, in any case; empty: whatever it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub contains: String,
}

/// A path's beginning, and what stands for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rewrite {
    /// The path that is replaced, as a policy's `path` is matched.
    pub prefix: String,
    /// What stands there instead: `/` takes the prefix away.
    pub to: String,
}

/// Where a client is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// Absolute, as `https://www.example.org{path}{query}`, or a path on the same host. `{host}`, `{path}` and `{query}`
    /// (with its `?`) are the request's.
    pub to: String,
    /// 301, 302, 303, 307 or 308.
    #[serde(default = "default_status")]
    pub status: u16,
}

/// How fast one client may ask: an address of IPv4, a /64 of IPv6.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestRate {
    /// So many requests...
    pub requests: u32,
    /// ... in so many seconds.
    #[serde(default = "default_per_s", skip_serializing_if = "is_default_per_s")]
    pub per_s: u32,
    /// Requests at once beyond the rate; 0: as many as `requests`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub burst: u32,
}

/// Changes to the fields of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EditFields {
    /// Fields that have these values, whatever they had before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Fields that are taken away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

/// `Strict-Transport-Security` (RFC 6797, section 6.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hsts {
    /// How long browsers remember it, in seconds.
    pub max_age_s: u64,
    /// Also for names below this one.
    #[serde(skip_serializing_if = "is_false")]
    pub include_subdomains: bool,
    /// Consents to the lists that browsers are shipped with.
    #[serde(skip_serializing_if = "is_false")]
    pub preload: bool,
}

/// How responses are compressed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Compress {
    /// The codings offered, of those that a client likes as much the first.
    pub codings: Vec<Coding>,
    /// Responses that are known to be smaller stay as they are, in bytes.
    pub min_bytes: u64,
    /// Media types, without parameters: `text/html`, `text/*` or `*+json`.
    pub types: Vec<String>,
}

/// What MC-Proxy's own answers look like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorPage {
    /// For these statuses, 400 to 599; none: for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub statuses: Vec<u16>,
    /// Its media type.
    #[serde(default = "default_content_type")]
    pub content_type: String,
    /// The page, at most 64 KiB; `{status}`, `{reason}` and `{request_id}` are the answer's.
    pub body: String,
}

/// Where a copy of requests goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// IP address and port. It speaks HTTP/1.1 without TLS.
    pub to: SocketAddr,
    /// Share of the requests, in percent.
    #[serde(default = "default_percent")]
    pub percent: u8,
}

/// Keeps a client with its backend by a cookie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sticky {
    /// The cookie's name.
    pub cookie: String,
    /// How long browsers keep it, in seconds; 0: until they are closed.
    #[serde(skip_serializing_if = "is_default")]
    pub max_age_s: u64,
}

impl Policy {
    /// The path of a policy for all requests.
    pub const PATH: &str = "/";
}

impl Redirect {
    /// The status where none is given.
    pub const STATUS: u16 = 302;
}

impl RequestRate {
    /// The seconds where none are given.
    pub const PER_S: u32 = 1;
}

impl ErrorPage {
    /// The media type where none is given.
    pub const CONTENT_TYPE: &str = "text/html; charset=utf-8";
}

impl Mirror {
    /// The share where none is given.
    pub const PERCENT: u8 = 100;
}

impl Default for Compress {
    /// What is text by nature, from a network packet on.
    fn default() -> Self {
        let types = [
            "text/*",
            "*+json",
            "*+xml",
            "application/json",
            "application/javascript",
            "application/xml",
            "application/wasm",
        ];
        Self { codings: Coding::ALL.to_vec(), min_bytes: 1024, types: types.map(str::to_owned).to_vec() }
    }
}

impl Default for Hsts {
    fn default() -> Self {
        Self { max_age_s: 31_536_000, include_subdomains: false, preload: false }
    }
}

impl Default for Sticky {
    fn default() -> Self {
        Self { cookie: "mc-backend".to_owned(), max_age_s: 0 }
    }
}

fn default_path() -> String {
    Policy::PATH.to_owned()
}

fn is_default_path(path: &str) -> bool {
    path == Policy::PATH
}

const fn default_status() -> u16 {
    Redirect::STATUS
}

const fn default_per_s() -> u32 {
    RequestRate::PER_S
}

fn is_default_per_s(seconds: &u32) -> bool {
    *seconds == RequestRate::PER_S
}

fn default_content_type() -> String {
    ErrorPage::CONTENT_TYPE.to_owned()
}

const fn default_percent() -> u8 {
    Mirror::PERCENT
}
