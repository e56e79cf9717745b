//! A site's own address, as configurations state it.

use url::Url;

/// That a URL is an origin, in the form in which browsers send it (RFC 6454, section 6.2): forms are accepted from this origin only.
///
/// # Errors
/// It is not: what it must be.
pub fn check_origin(url: &str) -> Result<(), String> {
    let read = Url::parse(url).ok().filter(|read| read.scheme() == "https" && read.domain().is_some());
    match read.map(|read| read.origin().ascii_serialization()) {
        None => Err(format!("`{url}` must be `https://` and a host name, with an optional port")),
        Some(origin) if origin != *url => Err(format!("`{url}` must be written `{origin}`")),
        Some(_) if url.contains('*') => {
            Err(format!("`{url}` must be one host name: `*` stands for nothing here"))
        }
        Some(_) => Ok(()),
    }
}
