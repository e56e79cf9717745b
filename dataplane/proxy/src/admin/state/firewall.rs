//! The firewall: always compiled and replaced as a whole.

use std::sync::Arc;

use mc_core::firewall::Compiled;
use mc_core::model::{Firewall, FirewallRule, Rate, normalize_firewall, normalize_rule};
use serde_json::json;

use super::{Done, State};
use crate::admin::error::ChangeError;
use crate::admin::events::Kind;
use crate::geoip::GeoIp;
use crate::snapshot::FirewallEntry;
use crate::store::Change;

impl State {
    /// Replaces the firewall, where the revision is the expected one. The same again is no change.
    pub(crate) fn set_firewall(
        &mut self,
        firewall: Firewall,
        expected: Option<u64>,
    ) -> Result<Done<u64>, ChangeError> {
        self.check_revision(expected)?;
        let firewall = normalize_firewall(firewall)?;
        if firewall == self.firewall.spec {
            return Ok(Done::only(self.revision));
        }
        let compiled = Compiled::new(&firewall);
        self.commit(&Change::SetFirewall(firewall.clone()))?;
        let detail =
            json!({ "rules": firewall.rules.len(), "default": firewall.default, "rate": firewall.rate });
        let geo = Arc::clone(&self.firewall.geo);
        self.kernel.set_policy(&compiled, &geo);
        self.firewall = Arc::new(FirewallEntry { spec: firewall, compiled, geo });
        self.publish(self.table());
        self.events.announce(Kind::FirewallChanged, "", &detail);
        Ok(Done::only(self.revision))
    }

    /// Judges by other databases from now on. That is no change of the configuration, and has no revision.
    pub(crate) fn set_geo(&mut self, geo: Arc<GeoIp>) {
        let spec = self.firewall.spec.clone();
        let compiled = Compiled::new(&spec);
        self.kernel.set_policy(&compiled, &geo);
        self.firewall = Arc::new(FirewallEntry { spec, compiled, geo });
        self.publish(self.table());
    }

    /// Adds a rule; one that says the same of the same subject takes the new comment.
    pub(crate) fn add_rule(&mut self, rule: FirewallRule) -> Result<Done<u64>, ChangeError> {
        let rule = normalize_rule(rule)?;
        let mut firewall = self.firewall.spec.clone();
        match firewall.rules.iter_mut().find(|known| same_rule(known, &rule)) {
            Some(known) => *known = rule,
            None => firewall.rules.push(rule),
        }
        self.set_firewall(firewall, None)
    }

    /// Removes a rule, whatever its comment.
    pub(crate) fn remove_rule(&mut self, rule: FirewallRule) -> Result<Done<u64>, ChangeError> {
        let rule = normalize_rule(rule)?;
        let mut firewall = self.firewall.spec.clone();
        firewall.rules.retain(|known| !same_rule(known, &rule));
        if firewall.rules.len() == self.firewall.spec.rules.len() {
            return Err(ChangeError::NoRule);
        }
        self.set_firewall(firewall, None)
    }

    /// Changes the rate and leaves the rules.
    pub(crate) fn set_rate(&mut self, rate: Rate) -> Result<Done<u64>, ChangeError> {
        self.set_firewall(Firewall { rate, ..self.firewall.spec.clone() }, None)
    }
}

/// Whether two rules say the same of the same subject.
fn same_rule(a: &FirewallRule, b: &FirewallRule) -> bool {
    a.action == b.action && a.subject == b.subject
}
