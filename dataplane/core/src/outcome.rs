//! Every way in which a connection can end: one closed list, so that the log, the metrics and the events
//! use the same words and the number of label values is bounded.

use serde::Serialize;

/// How a connection ended. The name in snake case is its word in log and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Outcome {
    /// Both sides finished.
    Completed,
    /// The client reset the connection.
    ClientReset,
    /// The backend reset the connection.
    BackendReset,
    /// Nothing moved for the route's idle timeout.
    IdleTimeout,
    /// The connection reached the route's greatest age.
    TotalTimeout,
    /// An operator closed it, or its route was removed with "kill".
    Killed,
    /// The proxy stopped and its drain time was over.
    Drained,
    /// No route for the name.
    NoRoute,
    /// The route terminates TLS, and there is no certificate for the name.
    NoCertificate,
    /// The TLS handshake failed.
    TlsFailed,
    /// PROXY header or ClientHello did not arrive in time.
    HelloTimeout,
    /// The client closed before its ClientHello was complete.
    HelloIncomplete,
    /// The ClientHello is larger than the listener allows.
    HelloTooLarge,
    /// What came is TLS but not a well-formed ClientHello.
    HelloMalformed,
    /// What came is no TLS.
    NotTls,
    /// What came is HTTP without TLS.
    PlainHttp,
    /// The PROXY header that must come did not.
    ProxyMissing,
    /// The PROXY header is malformed, or its checksum is wrong.
    ProxyInvalid,
    /// The peer may not speak for others, and the listener requires a PROXY header.
    ProxyUntrusted,
    /// A denied network.
    DeniedCidr,
    /// A denied autonomous system.
    DeniedAsn,
    /// A denied country.
    DeniedCountry,
    /// Not allowed by any rule, and the default is deny.
    DeniedDefault,
    /// The address opens connections too fast.
    RateAddress,
    /// The address's prefix opens connections too fast.
    RatePrefix,
    /// The route has as many connections as it may.
    RouteLimit,
    /// The client has as many connections on the route as it may.
    SourceLimit,
    /// Every backend is down, ejected or draining.
    NoBackend,
    /// Connecting failed on every backend tried.
    ConnectFailed,
    /// Connecting took longer than the route allows on every backend tried.
    ConnectTimeout,
    /// The proxy itself had no descriptor or memory for it.
    Overload,
    /// Its route is on hold, and as many wait already as may.
    HoldLimit,
}

impl Outcome {
    /// Every outcome, in order of its discriminant.
    pub const ALL: [Self; 32] = [
        Self::Completed,
        Self::ClientReset,
        Self::BackendReset,
        Self::IdleTimeout,
        Self::TotalTimeout,
        Self::Killed,
        Self::Drained,
        Self::NoRoute,
        Self::NoCertificate,
        Self::TlsFailed,
        Self::HelloTimeout,
        Self::HelloIncomplete,
        Self::HelloTooLarge,
        Self::HelloMalformed,
        Self::NotTls,
        Self::PlainHttp,
        Self::ProxyMissing,
        Self::ProxyInvalid,
        Self::ProxyUntrusted,
        Self::DeniedCidr,
        Self::DeniedAsn,
        Self::DeniedCountry,
        Self::DeniedDefault,
        Self::RateAddress,
        Self::RatePrefix,
        Self::RouteLimit,
        Self::SourceLimit,
        Self::NoBackend,
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::Overload,
        Self::HoldLimit,
    ];

    /// Its word in log, metrics and events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::ClientReset => "client_reset",
            Self::BackendReset => "backend_reset",
            Self::IdleTimeout => "idle_timeout",
            Self::TotalTimeout => "total_timeout",
            Self::Killed => "killed",
            Self::Drained => "drained",
            Self::NoRoute => "no_route",
            Self::NoCertificate => "no_certificate",
            Self::TlsFailed => "tls_failed",
            Self::HelloTimeout => "hello_timeout",
            Self::HelloIncomplete => "hello_incomplete",
            Self::HelloTooLarge => "hello_too_large",
            Self::HelloMalformed => "hello_malformed",
            Self::NotTls => "not_tls",
            Self::PlainHttp => "plain_http",
            Self::ProxyMissing => "proxy_missing",
            Self::ProxyInvalid => "proxy_invalid",
            Self::ProxyUntrusted => "proxy_untrusted",
            Self::DeniedCidr => "denied_cidr",
            Self::DeniedAsn => "denied_asn",
            Self::DeniedCountry => "denied_country",
            Self::DeniedDefault => "denied_default",
            Self::RateAddress => "rate_address",
            Self::RatePrefix => "rate_prefix",
            Self::RouteLimit => "route_limit",
            Self::SourceLimit => "source_limit",
            Self::NoBackend => "no_backend",
            Self::ConnectFailed => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::Overload => "overload",
            Self::HoldLimit => "hold_limit",
        }
    }

    /// Whether the connection was refused before anything was relayed.
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        self as u8 >= Self::NoRoute as u8
    }

    /// Whether it was the firewall that refused the connection.
    #[must_use]
    pub const fn is_firewall(self) -> bool {
        self as u8 >= Self::DeniedCidr as u8 && self as u8 <= Self::RatePrefix as u8
    }
}

/// How a request within an HTTP connection ended. The name in snake case is its word in log and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum RequestOutcome {
    /// The backend's response was passed on, all of it.
    Completed,
    /// The client left, or reset the request, before it was over.
    ClientGone,
    /// The client did not send its request, or take its response, in time.
    ClientTimeout,
    /// It is no request that can be passed on.
    Malformed,
    /// Its body is larger than the route allows.
    TooLarge,
    /// It asks for another host than the one that TLS was for.
    Misdirected,
    /// There is no route any more.
    NoRoute,
    /// Every backend is down, ejected or draining.
    NoBackend,
    /// Connecting failed on every backend tried.
    ConnectFailed,
    /// The backend closed before it had answered.
    BackendClosed,
    /// The backend did not answer in time.
    BackendTimeout,
    /// What the backend answered is no response that can be passed on.
    BackendMalformed,
    /// The backend broke off in the middle of its response.
    BackendCut,
    /// The connection was given to another protocol, and ended.
    Upgraded,
    /// A policy refuses it.
    Denied,
    /// No policy or backend of the route is for its path.
    NotFound,
    /// A policy does not allow its method.
    MethodNotAllowed,
    /// The client asks faster than a policy allows.
    RateLimited,
    /// A policy sends the client elsewhere.
    Redirected,
    /// There is no descriptor or no memory for a connection to a backend.
    Overload,
    /// Its route is on hold, and as many wait already as may.
    HoldLimit,
    /// An operator ended it, or the connection that it came on.
    Killed,
}

impl RequestOutcome {
    /// Every outcome, in order of its discriminant.
    pub const ALL: [Self; 22] = [
        Self::Completed,
        Self::ClientGone,
        Self::ClientTimeout,
        Self::Malformed,
        Self::TooLarge,
        Self::Misdirected,
        Self::NoRoute,
        Self::NoBackend,
        Self::ConnectFailed,
        Self::BackendClosed,
        Self::BackendTimeout,
        Self::BackendMalformed,
        Self::BackendCut,
        Self::Upgraded,
        Self::Denied,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RateLimited,
        Self::Redirected,
        Self::Overload,
        Self::HoldLimit,
        Self::Killed,
    ];

    /// Its word in log and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::ClientGone => "client_gone",
            Self::ClientTimeout => "client_timeout",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::Misdirected => "misdirected",
            Self::NoRoute => "no_route",
            Self::NoBackend => "no_backend",
            Self::ConnectFailed => "connect_failed",
            Self::BackendClosed => "backend_closed",
            Self::BackendTimeout => "backend_timeout",
            Self::BackendMalformed => "backend_malformed",
            Self::BackendCut => "backend_cut",
            Self::Upgraded => "upgraded",
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RateLimited => "rate_limited",
            Self::Redirected => "redirected",
            Self::Overload => "overload",
            Self::HoldLimit => "hold_limit",
            Self::Killed => "killed",
        }
    }

    /// The status that a client is told where there is no response to pass on (RFC 9110, section 15).
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Redirected => 302,
            Self::Malformed => 400,
            Self::Denied => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::ClientTimeout => 408,
            Self::TooLarge => 413,
            Self::RateLimited => 429,
            Self::Misdirected | Self::NoRoute => 421,
            Self::NoBackend | Self::Overload | Self::HoldLimit => 503,
            Self::BackendTimeout => 504,
            _ => 502,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Outcome, RequestOutcome};

    #[test]
    fn all_requests_are_in_order_and_words_are_those_serde_writes() {
        for (index, outcome) in RequestOutcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, index);
            assert_eq!(serde_json::to_string(outcome).unwrap(), format!("\"{}\"", outcome.as_str()));
        }
    }

    #[test]
    fn all_is_in_order_and_words_are_those_serde_writes() {
        for (index, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, index);
            assert_eq!(serde_json::to_string(outcome).unwrap(), format!("\"{}\"", outcome.as_str()));
        }
    }
}
