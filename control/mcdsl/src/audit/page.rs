//! The page of the audit log: functions over the messages of `metacircular.audit.v1`. The service's page is around it.

use maud::{Markup, html};
use mc_api::audit::{
    AuditEntry, ListAuditRequest, ListAuditResponse, VerifyAuditRequest, VerifyAuditResponse,
};
use serde::{Deserialize, Serialize};

use crate::web::{self, Action, Choice, Field, Kind, Tone};

/// What a page asks for: the query of its address.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Search {
    #[serde(default)]
    account: String,
    #[serde(default)]
    action: String,
    #[serde(default)]
    outcome: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<String>,
}

/// The form that starts or continues a verification.
#[derive(Debug, Default, Deserialize)]
pub struct Verification {
    after_entry: Option<i64>,
    after_hash: Option<String>,
}

impl Search {
    /// The request for a page of 50 entries.
    #[must_use]
    pub fn request(&self) -> ListAuditRequest {
        let filter = |text: &String| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        ListAuditRequest {
            limit: Some(50),
            before: self.before.clone(),
            account: filter(&self.account),
            action: filter(&self.action),
            outcome: filter(&self.outcome),
            ..ListAuditRequest::default()
        }
    }

    fn link(&self, path: &str, before: Option<String>) -> String {
        let Self { account, action, outcome, .. } = self;
        let search =
            Self { account: account.clone(), action: action.clone(), outcome: outcome.clone(), before };
        format!("{path}?{}", serde_urlencoded::to_string(search).expect("texts can be written as a query"))
    }
}

impl From<Verification> for VerifyAuditRequest {
    fn from(Verification { after_entry, after_hash }: Verification) -> Self {
        Self { after_entry, after_hash, limit: None }
    }
}

/// The page at `path`, whose form for verification is sent to `verify`.
#[must_use]
pub fn page(
    path: &str,
    verify: &str,
    csrf: &str,
    search: &Search,
    found: ListAuditResponse,
    verdict: Option<&VerifyAuditResponse>,
) -> Markup {
    let next = found.next.map(|next| search.link(path, Some(next)));
    let first = search.before.as_ref().map(|_| search.link(path, None));
    let rows: Vec<_> = found.entries.iter().map(row).collect();
    let text = |name, label, value| Field { value, required: false, ..Field::new(name, label, Kind::Text) };
    html! {
        @if let Some(verdict) = verdict { (verdict_notice(verdict, verify, csrf)) }
        (web::search_form(path, html! {
            (web::field(text("account", "Account", &search.account)))
            (web::field(text("action", "Action", &search.action)))
            (web::field(Field {
                value: &search.outcome,
                required: false,
                ..Field::new("outcome", "Result", Kind::Select(&OUTCOMES))
            }))
            (web::button("Search", Action::Secondary))
        }))
        (web::table("Audit log entries, newest first", &COLUMNS, &rows))
        (web::pagination(first.as_deref(), next.as_deref()))
        (web::card("Verification", html! {
            p { "Each entry contains the hash of the previous one, so a later change is detected." }
            (web::form(verify, csrf, web::button("Verify now", Action::Secondary)))
        }))
    }
}

fn row(entry: &AuditEntry) -> Vec<Markup> {
    let result = match entry.outcome.as_str() {
        "done" => html! { "Done" },
        _ if entry.action == "login" => web::badge("Failed", Tone::Bad),
        _ => web::badge("Denied", Tone::Bad),
    };
    vec![
        html! { (entry.number) },
        web::when(entry.at_ms.div_euclid(1000)),
        html! { (entry.actor) },
        html! { (entry.action) },
        html! { (entry.target) },
        result,
        html! { (entry.source) },
        html! { (detail(&entry.detail)) },
    ]
}

/// The detail of an entry: reasons, which are words for programs, as sentences.
fn detail(text: &str) -> &str {
    match text {
        "wrong-login" => "Wrong username, password or passkey",
        "wrong-password" => "Wrong password",
        "wrong-code" => "Wrong code",
        "used-code" => "Code already used",
        "second-factor-required" => "Code missing",
        "fresh-login-required" => "Recent login required",
        "forged-form" => "Form not from this site",
        "forbidden" => "Not permitted",
        "denied-by-policy" => "Denied by the login policy",
        "too-many-attempts" => "Too many attempts",
        text => text,
    }
}

fn verdict_notice(verdict: &VerifyAuditResponse, verify: &str, csrf: &str) -> Markup {
    let VerifyAuditResponse { last_entry, last_hash, problem, .. } = verdict;
    if let Some(problem) = problem {
        return web::notice(Tone::Bad, html! { p { strong { "Chain broken. " } (problem) } });
    }
    let checkpoint = html! { code { (last_entry) ":" (last_hash) } };
    if verdict.complete {
        let text = html! { p { strong { "Chain verified to #" (last_entry) ". " } "Store this checkpoint elsewhere: " (checkpoint) } };
        return web::notice(Tone::Good, text);
    }
    // A long log takes longer than a request may: so many entries at a time.
    web::notice(
        Tone::Info,
        html! {
            p { strong { "Verified to #" (last_entry) " so far. " } "There are more entries. Checkpoint: " (checkpoint) }
            (web::form(verify, csrf, html! {
                input type="hidden" name="after_entry" value=(last_entry);
                input type="hidden" name="after_hash" value=(last_hash);
                (web::button("Continue", Action::Secondary))
            }))
        },
    )
}

const COLUMNS: [&str; 8] = ["Entry", "Time", "Account", "Action", "Target", "Result", "Source", "Detail"];

const OUTCOMES: [Choice<'static>; 3] = [
    Choice { value: "", label: "All" },
    Choice { value: "done", label: "Done" },
    Choice { value: "refused", label: "Denied or failed" },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verification_that_is_not_complete_continues_where_it_stopped() {
        let mut verdict = VerifyAuditResponse {
            intact: true,
            complete: false,
            last_entry: 100,
            last_hash: "9f86".to_owned(),
            problem: None,
        };
        let show = |verdict: &VerifyAuditResponse| {
            let found = ListAuditResponse::default();
            page("/audit", "/audit/verify", "token", &Search::default(), found, Some(verdict)).into_string()
        };
        let shown = show(&verdict);
        assert!(shown.contains(r#"name="after_entry" value="100""#), "{shown}");
        assert!(shown.contains("so far"), "{shown}");
        verdict.complete = true;
        assert!(!show(&verdict).contains("after_entry"));
        verdict.problem = Some("entry 7: hash differs".to_owned());
        assert!(show(&verdict).contains("Chain broken"));
    }

    #[test]
    fn filters_stay_while_the_pages_are_turned() {
        let search = Search { account: "bob & co".to_owned(), ..Search::default() };
        let found = ListAuditResponse { next: Some("51".to_owned()), ..ListAuditResponse::default() };
        let shown = page("/audit", "/audit/verify", "token", &search, found, None).into_string();
        assert!(
            shown.contains("/audit?account=bob+%26+co&amp;action=&amp;outcome=&amp;before=51"),
            "{shown}"
        );
        assert_eq!(search.request().account.as_deref(), Some("bob & co"));
        assert_eq!(search.request().action, None);
    }
}
