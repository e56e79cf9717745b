//! Answers about tokens, each for a short time.

use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache as Map;

use crate::identity::Identity;
use crate::problem::Problem;

/// SHA-256 of a token: the token itself is not stored.
pub(super) type Key = [u8; 32];

#[derive(Clone, Debug)]
struct Cached {
    answer: Result<Arc<Identity>, Problem>,
    expires: Duration,
}

#[derive(Debug)]
pub(super) struct Cache {
    map: Map<Key, Cached>,
}

impl Cache {
    pub(super) fn new(max_tokens: usize) -> Self {
        Self { map: Map::new(max_tokens) }
    }

    /// The cached answer, or the one that `fetch` returns with the time for which it may be cached. Of several callers with the same key, one
    /// fetches and all get its answer. `now` is monotonic.
    pub(super) async fn get(
        &self,
        key: Key,
        now: Duration,
        fetch: impl Future<Output = (Result<Arc<Identity>, Problem>, Duration)>,
    ) -> Result<Arc<Identity>, Problem> {
        if let Some(cached) = self.map.get(&key) {
            if now < cached.expires {
                return cached.answer;
            }
            // Another caller may have replaced it meanwhile.
            drop(self.map.remove_if(&key, |current| current.expires == cached.expires));
        }
        match self.map.get_value_or_guard_async(&key).await {
            Ok(cached) => cached.answer,
            Err(guard) => {
                let (answer, max_age) = fetch.await;
                let cached = Cached { answer: answer.clone(), expires: now.saturating_add(max_age) };
                // Callers that wait get the answer even if the cache has no room for it.
                guard.insert(cached).ok();
                answer
            }
        }
    }

    pub(super) fn remove(&self, key: &Key) {
        drop(self.map.remove(key));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::problem::Kind;

    const KEY: Key = [7; 32];

    /// A cache that counts how often an answer was fetched. The answers are refusals that say their number.
    struct Counted {
        cache: Cache,
        fetched: AtomicUsize,
    }

    impl Counted {
        fn new() -> Arc<Self> {
            Arc::new(Self { cache: Cache::new(10), fetched: AtomicUsize::new(0) })
        }

        async fn get(&self, now_s: u64, max_age_s: u64) -> String {
            let fetch = async {
                let number = self.fetched.fetch_add(1, Ordering::Relaxed) + 1;
                tokio::task::yield_now().await;
                (Err(Problem::new(Kind::Forbidden, "x", number.to_string())), Duration::from_secs(max_age_s))
            };
            self.cache.get(KEY, Duration::from_secs(now_s), fetch).await.unwrap_err().detail
        }
    }

    #[tokio::test]
    async fn an_answer_expires() {
        let counted = Counted::new();
        assert_eq!(counted.get(100, 30).await, "1");
        assert_eq!(counted.get(129, 30).await, "1");
        assert_eq!(counted.get(130, 30).await, "2");
        counted.cache.remove(&KEY);
        assert_eq!(counted.get(131, 0).await, "3");
        assert_eq!(counted.get(131, 0).await, "4");
    }

    #[tokio::test]
    async fn concurrent_callers_share_one_fetch() {
        let counted = Counted::new();
        let one = || {
            let counted = Arc::clone(&counted);
            tokio::spawn(async move { counted.get(0, 0).await })
        };
        let callers: Vec<_> = (0..100).map(|_| one()).collect();
        for caller in callers {
            assert_eq!(caller.await.unwrap(), "1");
        }
    }

    #[tokio::test]
    async fn a_caller_that_gives_up_leaves_the_fetch_to_the_next() {
        let counted = Counted::new();
        let stuck = counted.cache.get(KEY, Duration::ZERO, std::future::pending());
        let waiting = counted.get(0, 30);
        tokio::pin!(waiting);
        tokio::select! {
            biased;
            _ = stuck => panic!("it has no answer"),
            _ = &mut waiting => panic!("another caller fetches"),
            () = tokio::task::yield_now() => {}
        }
        assert_eq!(waiting.await, "1");
    }
}
