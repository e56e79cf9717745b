//! A request's head (RFC 9112, sections 3 and 5).

use super::field::{Known, Section, Span, framing};
use super::table::{is_target, is_token};
use super::{Authority, Body, Limits, Lines, Malformed, Version};

/// A request's head, as spans of the bytes that it was read from. Kept and used again for the next request, so that
/// its allocations are.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `POST` and so on.
    pub method: Span,
    /// Path and query, or `*`; what came in absolute form is cut to it. Empty for the authority form.
    pub target: Span,
    /// What the client speaks.
    pub version: Version,
    /// Whom the client asks for: `Host`, or where the target says so; empty in HTTP/1.0 without `Host`.
    pub host: Span,
    /// How the body ends.
    pub body: Body,
    /// Whether the connection may carry another request after this one.
    pub persistent: bool,
    /// Whether the client wants another protocol (`Upgrade`, named by `Connection`).
    pub upgrade: Option<Span>,
    /// Whether the client waits for "100 Continue" before it sends the body.
    pub expects_continue: bool,
    /// Everything else.
    pub section: Section,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            method: Span::default(),
            target: Span::default(),
            version: Version::Http11,
            host: Span::default(),
            body: Body::None,
            persistent: true,
            upgrade: None,
            expects_continue: false,
            section: Section::default(),
        }
    }
}

impl Request {
    /// Reads a complete head ([`super::HeadEnd`] says where it ends).
    ///
    /// # Errors
    /// Why it is no request that can be forwarded; `self` is then of no use until the next success.
    pub fn parse(&mut self, head: &[u8], limits: &Limits) -> Result<(), Malformed> {
        let mut lines = Lines::new(head);
        let (_, line) = lines.next()?.ok_or(Malformed::StartLine)?;
        let (method, target, version) = start_line(line)?;
        self.version = version;
        self.method = Span::new(0, method.len());
        self.target = Span::new(method.len() + 1, method.len() + 1 + target.len());
        if target.len() > limits.target_bytes {
            return Err(Malformed::TargetTooLong(limits.target_bytes));
        }
        self.section.parse(&mut lines, limits)?;
        let host = self.section.single(Known::Host).map_err(|()| Malformed::RepeatedHost)?;
        self.host = match host {
            Some(host) => host,
            None if version == Version::Http11 => return Err(Malformed::NoHost),
            None => Span::default(),
        };
        if host.is_some() && Authority::parse(self.host.of(head)).is_none() {
            return Err(Malformed::Host);
        }
        self.read_target(head)?;
        self.body = framing(&self.section, head, version)?.unwrap_or(Body::None);
        let options = self.section.connection;
        self.persistent = !options.close && (version == Version::Http11 || options.keep_alive);
        let upgrade = self.section.single(Known::Upgrade).map_err(|()| Malformed::Connection)?;
        let may_switch =
            |value: &Span| options.upgrade && version == Version::Http11 && !names_h2c(value.of(head));
        self.upgrade = upgrade.filter(may_switch);
        let expects = |value: Span| value.of(head).eq_ignore_ascii_case(b"100-continue");
        self.expects_continue = version == Version::Http11
            && self.body != Body::None
            && self.section.fields().iter().any(|field| field.known == Known::Expect && expects(field.value));
        Ok(())
    }

    /// Whether the method is this one. Methods are case-sensitive (RFC 9110, section 9.1).
    #[must_use]
    pub fn is(&self, head: &[u8], method: &str) -> bool {
        self.method.of(head) == method.as_bytes()
    }

    /// Brings the target to its origin form (RFC 9112, section 3.2).
    fn read_target(&mut self, head: &[u8]) -> Result<(), Malformed> {
        let target = self.target.of(head);
        if self.is(head, "CONNECT") {
            return Err(Malformed::Target);
        }
        if target == b"*" {
            return if self.is(head, "OPTIONS") { Ok(()) } else { Err(Malformed::Target) };
        }
        if target.starts_with(b"/") {
            // A fragment is not sent (RFC 9110, section 7.1): some read past it, some do not.
            return if target.contains(&b'#') { Err(Malformed::Target) } else { Ok(()) };
        }
        let scheme = [b"https://".as_slice(), b"http://"].into_iter();
        let scheme = scheme.map(<[u8]>::len).zip(["https://", "http://"]).find(|(len, scheme)| {
            target.get(..*len).is_some_and(|start| start.eq_ignore_ascii_case(scheme.as_bytes()))
        });
        let (scheme_len, _) = scheme.ok_or(Malformed::Target)?;
        let rest = &target[scheme_len..];
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
        let named = Authority::parse(&rest[..end]).ok_or(Malformed::Target)?;
        let path = match rest.get(end) {
            Some(b'/') if !rest.contains(&b'#') => self.target.part(scheme_len + end, target.len()),
            // Without a path it is "/" (RFC 9112, section 3.2.1): the one before the host. For OPTIONS it would be "*".
            None if !self.is(head, "OPTIONS") => self.target.part(scheme_len - 1, scheme_len),
            _ => return Err(Malformed::Target),
        };
        if !self.host.is_empty() && Authority::parse(self.host.of(head)) != Some(named) {
            let same = |host: Authority<'_>| host.same_host(named.host) && host.port == named.port;
            if !Authority::parse(self.host.of(head)).is_some_and(same) {
                return Err(Malformed::HostDisagrees);
            }
        }
        self.host = self.target.part(scheme_len, scheme_len + end);
        self.target = path;
        Ok(())
    }
}

/// Whether a connection may become one of this protocol, which an extended CONNECT asks for (RFC 8441, section 4): a name,
/// and not that of HTTP/2 without TLS.
#[must_use]
pub fn may_become(protocol: &[u8]) -> bool {
    is_token(protocol) && !names_h2c(protocol)
}

/// Whether an `Upgrade` asks for HTTP/2 without TLS. RFC 9113 has given that up, and a backend that still does it would
/// serve whatever requests follow without anybody seeing them.
fn names_h2c(protocols: &[u8]) -> bool {
    protocols.split(|byte| *byte == b',').any(|protocol| {
        let name = protocol.split(|byte| *byte == b'/').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(b"h2c")
    })
}

/// Takes the request line apart: three parts, one space between (RFC 9112, section 3).
fn start_line(line: &[u8]) -> Result<(&[u8], &[u8], Version), Malformed> {
    if line.contains(&b'\r') {
        return Err(Malformed::BareCr);
    }
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Malformed::StartLine);
    };
    if !is_token(method) {
        return Err(Malformed::Method);
    }
    if !is_target(target) {
        return Err(Malformed::Target);
    }
    Ok((method, target, self::version(version)?))
}

/// `HTTP/1.0` or `HTTP/1.1`.
pub(super) fn version(text: &[u8]) -> Result<Version, Malformed> {
    match text {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Malformed::Version)
        }
        _ => Err(Malformed::StartLine),
    }
}
