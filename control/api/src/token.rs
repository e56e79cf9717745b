//! The bearer token that goes with each call (RFC 6750).

use std::fmt;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// A bearer token, or none.
#[derive(Clone, Default)]
pub struct Token(Option<MetadataValue<Ascii>>);

impl Token {
    /// The token in a text, without the space around it; `None`: there is none, or it has characters that no token has.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let text = Some(text.trim()).filter(|text| !text.is_empty())?;
        let mut value = MetadataValue::try_from(format!("Bearer {text}").as_str()).ok()?;
        value.set_sensitive(true);
        Some(Self(Some(value)))
    }
}

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Token(redacted)" } else { "Token(none)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_and_is_never_shown() {
        let token = Token::of(" hunter2\n").unwrap();
        assert_eq!(format!("{token:?}"), "Token(redacted)");
        assert_eq!(token.0.unwrap(), "Bearer hunter2");
        assert!(Token::of(" \n").is_none() && Token::of("a\nb").is_none());
    }
}
