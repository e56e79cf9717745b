//! Who may change a route that has an owner.
//!
//! An owner is a name that callers state, not a proven identity: every caller of the admin API may do
//! everything. It keeps a control plane and an operator from changing each other's routes by mistake.

use super::Route;

/// On whose behalf routes are changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangedBy {
    /// As [`Route::owner`]; empty: the caller names none.
    pub owner: String,
    /// The change is made even if the route has another owner.
    pub override_owner: bool,
}

impl ChangedBy {
    /// Whether `route` may be changed, removed or put on hold.
    #[must_use]
    pub fn may_change(&self, route: &Route) -> bool {
        self.override_owner || route.owner.is_empty() || route.owner == self.owner
    }

    /// Gives a route that is put the caller's owner, where it names none itself.
    pub fn own(&self, route: &mut Route) {
        if route.owner.is_empty() {
            route.owner.clone_from(&self.owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(owner: &str) -> Route {
        let text = r#"{"listener": "web", "name": "a.test", "backends": [], "owner": "OWNER"}"#;
        serde_json::from_str(&text.replace("OWNER", owner)).unwrap()
    }

    fn by(owner: &str, override_owner: bool) -> ChangedBy {
        ChangedBy { owner: owner.to_owned(), override_owner }
    }

    #[test]
    fn only_the_owner_changes_a_route_unless_it_is_overridden() {
        for (route_owner, caller, may) in [
            ("", "", true),
            ("", "plane", true),
            ("plane", "plane", true),
            ("plane", "", false),
            ("plane", "other", false),
        ] {
            assert_eq!(
                by(caller, false).may_change(&route(route_owner)),
                may,
                "{caller:?} on {route_owner:?}"
            );
            assert!(by(caller, true).may_change(&route(route_owner)));
        }
    }

    #[test]
    fn a_route_that_names_no_owner_gets_the_callers() {
        for (route_owner, caller, expect) in
            [("", "", ""), ("", "plane", "plane"), ("other", "plane", "other"), ("other", "", "other")]
        {
            let mut route = route(route_owner);
            by(caller, false).own(&mut route);
            assert_eq!(route.owner, expect);
        }
    }
}
