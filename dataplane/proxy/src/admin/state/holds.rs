//! Routes on hold: kept in memory only, and ended by every change of the route but those that keep them.
//!
//! A hold ends after the change is published, so that the route that is looked up then is the new one.

use std::sync::Arc;

use mc_core::model::{ChangedBy, RouteKey};
use mc_core::validate::check_hold;
use serde_json::json;

use super::routes::{check_owner, normalize_key};
use super::{After, Done, State};
use crate::admin::error::ChangeError;
use crate::admin::events::Kind;
use crate::clock;
use crate::stats::RouteLive;

impl State {
    /// Puts a route on hold, or prolongs its hold.
    pub(crate) fn hold_route(
        &mut self,
        key: RouteKey,
        hold_ms: u64,
        by: &ChangedBy,
    ) -> Result<Done<()>, ChangeError> {
        check_hold(hold_ms)?;
        let key = normalize_key(key);
        let Some(entry) = self.view.read().listing.get(&key).cloned() else {
            return Err(ChangeError::NoRoute(key));
        };
        check_owner([&entry.spec], by)?;
        let now_ms = clock::millis();
        entry.live.hold.begin(now_ms, hold_ms);
        let mut view = self.view.write();
        view.holds.retain(|_, live| live.hold.is_on(now_ms));
        view.holds.insert(key.clone(), Arc::clone(&entry.live));
        drop(view);
        self.events.announce(Kind::RouteHeld, key.to_string(), &json!({ "hold_ms": hold_ms }));
        Ok(Done { value: (), after: After { holds: true, ..After::default() } })
    }

    /// Ends a route's hold; whether there was one.
    pub(crate) fn release_route(&mut self, key: RouteKey, by: &ChangedBy) -> Result<Done<bool>, ChangeError> {
        let key = normalize_key(key);
        let Some(entry) = self.view.read().listing.get(&key).cloned() else {
            return Err(ChangeError::NoRoute(key));
        };
        check_owner([&entry.spec], by)?;
        let holds = self.release([&entry.live]);
        Ok(Done { value: holds, after: After { holds, ..After::default() } })
    }

    /// Ends the hold of a route that was just added or updated. The owner was checked then.
    pub(crate) fn release_put(&mut self, key: &RouteKey) -> Done<()> {
        let live = self.view.read().holds.get(key).cloned();
        let holds = self.release(&live);
        Done { value: (), after: After { holds, ..After::default() } }
    }

    /// Ends the holds of these routes, where there are any. Whether there was one.
    pub(super) fn release<'a>(&self, lives: impl IntoIterator<Item = &'a Arc<RouteLive>>) -> bool {
        let now_ms = clock::millis();
        let mut any = false;
        for live in lives {
            if live.hold.end(now_ms) {
                any = true;
                self.view.write().holds.remove(&live.key);
                self.events.announce(Kind::RouteReleased, live.key.to_string(), &json!({}));
            }
        }
        any
    }
}
