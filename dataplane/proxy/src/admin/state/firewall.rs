//! The firewall: always compiled and replaced as a whole.

use std::sync::Arc;

use mc_core::firewall::Compiled;
use mc_core::model::{Firewall, FirewallRule, Rate, Subject};
use mc_core::validate::{Invalid, normalize_firewall, normalize_rule};
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
        let known = &self.firewall.spec.rules;
        check_databases(&firewall.rules, known, &self.firewall.geo)
            .map_err(|invalid| invalid.within("firewall"))?;
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
        for problem in self.firewall.problems() {
            tracing::error!("{problem}");
        }
        self.publish(self.table());
    }

    /// Adds a rule; one that says the same of the same subject takes the new comment.
    pub(crate) fn add_rule(&mut self, rule: FirewallRule) -> Result<Done<u64>, ChangeError> {
        let rule = normalize_rule(rule)?;
        let mut firewall = self.firewall.spec.clone();
        check_databases(std::slice::from_ref(&rule), &firewall.rules, &self.firewall.geo).map_err(
            |invalid| {
                let Invalid { field, problem } = invalid;
                Invalid { field: field.replace("rules[0]", "rule"), problem }
            },
        )?;
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

/// Refuses rules that would do nothing, as there is no database to look their subject up in. Those that are there
/// already stay: the database may come back.
pub(super) fn check_databases(
    rules: &[FirewallRule],
    known: &[FirewallRule],
    geo: &GeoIp,
) -> Result<(), Invalid> {
    for (index, rule) in rules.iter().enumerate() {
        let Some(missing) = geo.lacks(&rule.subject) else { continue };
        if !known.iter().any(|known| same_rule(known, rule)) {
            let kind = if matches!(rule.subject, Subject::Asn(_)) { "asn" } else { "country" };
            let problem = format!("the rule would do nothing: {missing}");
            return Err(Invalid { field: format!("rules[{index}].{kind}"), problem });
        }
    }
    Ok(())
}

/// Whether two rules say the same of the same subject.
fn same_rule(a: &FirewallRule, b: &FirewallRule) -> bool {
    a.action == b.action && a.subject == b.subject
}
