//! What MCIAS said of a token, for as long as it may be believed.

use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache as Map;

use crate::identity::Identity;
use crate::problem::Problem;

/// SHA-256 of a token: the token itself is not kept.
pub(super) type Key = [u8; 32];

/// An answer, and until when it may be believed.
#[derive(Clone, Debug)]
struct Kept {
    answer: Result<Arc<Identity>, Problem>,
    until: Duration,
}

/// Answers that are kept.
#[derive(Debug)]
pub(super) struct Cache {
    map: Map<Key, Kept>,
}

impl Cache {
    /// Of at most so many tokens.
    pub(super) fn new(tokens: usize) -> Self {
        Self { map: Map::new(tokens) }
    }

    /// The answer that is kept, or that `ask` gives with how long it may be kept. Of those who want the same at the same
    /// time, one asks, and all get its answer. `now` is any time that does not go back.
    pub(super) async fn get(
        &self,
        key: Key,
        now: Duration,
        ask: impl Future<Output = (Result<Arc<Identity>, Problem>, Duration)>,
    ) -> Result<Arc<Identity>, Problem> {
        if let Some(kept) = self.map.get(&key) {
            if now < kept.until {
                return kept.answer;
            }
            // It must be gone for somebody to ask again; but not if somebody else has asked meanwhile.
            drop(self.map.remove_if(&key, |there| there.until == kept.until));
        }
        match self.map.get_value_or_guard_async(&key).await {
            Ok(kept) => kept.answer,
            Err(guard) => {
                let (answer, keep) = ask.await;
                let kept = Kept { answer: answer.clone(), until: now.saturating_add(keep) };
                // Whoever waits gets it even if the cache has no room for it.
                guard.insert(kept).ok();
                answer
            }
        }
    }
}
