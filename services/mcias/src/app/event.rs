//! What goes to the audit log.

use super::Ask;
use crate::domain::audit::Entry;

/// It was done.
pub(super) const DONE: &str = "done";

/// It was refused.
pub(super) const REFUSED: &str = "refused";

/// Something that is done or refused.
#[derive(Clone, Debug)]
pub(super) struct Event {
    /// Who does it, where that is not whoever shows the token.
    pub(super) actor: Option<String>,
    /// A word of a closed list.
    pub(super) action: &'static str,
    /// Of what.
    pub(super) target: String,
    /// What else there is to say.
    pub(super) detail: String,
    /// The service through which it is asked, where that is not MCIAS.
    pub(super) service: Option<String>,
}

impl Event {
    pub(super) fn new(action: &'static str, target: impl Into<String>) -> Self {
        Self { actor: None, action, target: target.into(), detail: String::new(), service: None }
    }

    pub(super) fn by(self, actor: impl Into<String>) -> Self {
        Self { actor: Some(actor.into()), ..self }
    }

    pub(super) fn because(self, detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ..self }
    }

    pub(super) fn through(self, service: impl Into<String>) -> Self {
        Self { service: Some(service.into()), ..self }
    }

    /// The entry, but for its number.
    pub(super) fn entry(&self, ask: &Ask, at_ms: i64, outcome: &str) -> Entry {
        let bearer = ask.bearer.as_deref().map(|bearer| bearer.account.name().to_string());
        let source = ask.caller.address;
        Entry {
            number: 0,
            at_ms,
            actor: self.actor.clone().or(bearer).unwrap_or_else(|| "-".to_owned()),
            action: self.action.to_owned(),
            target: short(&self.target),
            outcome: outcome.to_owned(),
            detail: short(&self.detail),
            source: if source.ip().is_unspecified() { String::new() } else { source.ip().to_string() },
            service: self.service.clone().unwrap_or_else(|| "mcias".to_owned()),
            request_id: ask.caller.request_id.to_string(),
        }
    }
}

/// The beginning of a text: what a client sent may be long, and the log is kept for ever.
fn short(text: &str) -> String {
    text.char_indices().nth(LONGEST).map_or(text, |(end, _)| &text[..end]).to_owned()
}

/// Characters of a text in the log.
const LONGEST: usize = 256;
