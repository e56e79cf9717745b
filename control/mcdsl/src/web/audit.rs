//! The page of the audit log: functions over the messages of `metacircular.audit.v1`. The service's page is around it.

use maud::{Markup, html};
use mc_api::audit::{
    AuditEntry, ListAuditRequest, ListAuditResponse, VerifyAuditRequest, VerifyAuditResponse,
};
use serde::{Deserialize, Serialize};

use crate::context::NOBODY;
use crate::escape::clean;
use crate::web::{self, Action, Choice, Field, Kind, Tone};

/// An action in words: `account.create`, `Created account`, `Create account`. Its target follows.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// The action, as entries have it.
    pub action: &'static str,
    /// What an entry of one that was done says.
    pub done: &'static str,
    /// What an entry of one that was refused says, before the reason.
    pub tried: &'static str,
    /// The beginning of the detail of entries that these words are for.
    detail: &'static str,
}

impl Words {
    /// An action in words.
    #[must_use]
    pub const fn new(action: &'static str, done: &'static str, tried: &'static str) -> Self {
        Self { action, done, tried, detail: "" }
    }

    /// What an entry of one that was done says, where its detail begins so. Must come before the general words of the action.
    #[must_use]
    pub const fn where_detail(action: &'static str, detail: &'static str, done: &'static str) -> Self {
        Self { action, done, tried: "", detail }
    }
}

/// What a page asks for: the query of its address.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Search {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    account: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    action: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    outcome: String,
    /// Only of the last so many hours.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    hours: String,
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
    /// The request for a page of 50 entries. `now` is in seconds since 1970.
    #[must_use]
    pub fn request(&self, now: i64) -> ListAuditRequest {
        let filter = |text: &String| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let hours = self.hours.parse::<u32>().ok();
        ListAuditRequest {
            limit: Some(50),
            before: self.before.clone(),
            account: filter(&self.account),
            action: filter(&self.action),
            outcome: filter(&self.outcome),
            since_ms: hours.map(|hours| (now - i64::from(hours) * 3600) * 1000),
            ..ListAuditRequest::default()
        }
    }

    fn link(&self, path: &str) -> String {
        let query = serde_urlencoded::to_string(self).expect("texts can be written as a query");
        if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
    }

    /// The filters that are in force, each with the address without it.
    fn chips(&self, path: &str, actions: &[Choice<'_>]) -> Vec<(String, String)> {
        let mut chips = Vec::new();
        let mut chip = |name: &str, value: &str, choices: &[Choice<'_>], without: fn(&mut Self)| {
            if value.is_empty() {
                return;
            }
            let label =
                choices.iter().find(|choice| choice.value == value).map_or(value, |choice| choice.label);
            let mut rest = Self { before: None, ..self.clone() };
            without(&mut rest);
            chips.push((format!("{name}: {label}"), rest.link(path)));
        };
        chip("Account", &self.account, &[], |search| search.account.clear());
        chip("Action", &self.action, actions, |search| search.action.clear());
        chip("Result", &self.outcome, &OUTCOMES, |search| search.outcome.clear());
        chip("Period", &self.hours, &PERIODS, |search| search.hours.clear());
        chips
    }
}

impl From<Verification> for VerifyAuditRequest {
    fn from(Verification { after_entry, after_hash }: Verification) -> Self {
        Self { after_entry, after_hash, limit: None }
    }
}

/// The button beside the heading, whose form is sent to `verify`.
#[must_use]
pub fn verify_button(verify: &str, csrf: &str) -> Markup {
    web::form(verify, csrf, web::button("Verify now", Action::Secondary))
}

/// The page at `path`, whose form for verification is sent to `verify`. `words` are the service's own actions; `now` is in seconds since 1970.
#[must_use]
pub fn page(
    (path, verify, csrf): (&str, &str, &str),
    now: i64,
    words: &[Words],
    search: &Search,
    found: &ListAuditResponse,
    verdict: Option<&VerifyAuditResponse>,
) -> Markup {
    let next = found.next.clone().map(|next| Search { before: Some(next), ..search.clone() }.link(path));
    let first = search.before.as_ref().map(|_| Search { before: None, ..search.clone() }.link(path));
    let mut actions = vec![Choice { value: "", label: "All actions" }];
    let general = words.iter().chain(&SHARED).filter(|words| words.detail.is_empty());
    actions.extend(general.map(|words| Choice { value: words.action, label: words.tried }));
    let chips = search.chips(path, &actions);
    let select =
        |name, label, value, choices| Field { value, required: false, ..Field::new(name, label, choices) };
    html! {
        @if let Some(verdict) = verdict { (verdict_note(verdict, verify, csrf)) }
        (web::filters(path, html! {
            (web::field(Field { value: &search.account, ..Field::new("account", "Account", Kind::Filter("Any account")) }))
            (web::field(select("action", "Action", &search.action, Kind::Select(&actions))))
            (web::field(select("outcome", "Result", &search.outcome, Kind::Select(&OUTCOMES))))
            (web::field(select("hours", "Period", &search.hours, Kind::Select(&PERIODS))))
            (web::button("Filter", Action::Secondary))
        }))
        (web::chips(&chips, path))
        (web::plain_panel(html! {
            @if let (Some(newest), Some(oldest)) = (found.entries.first(), found.entries.last()) {
                @for day in found.entries.chunk_by(|one, next| day_of(one) == day_of(next)) {
                    h2.day { (web::day(now, seconds(&day[0]))) }
                    @for entry in day { (line(entry, words)) }
                }
                @let range = format!("{}–{}, newest first", newest.number, oldest.number);
                (web::pager(&range, &[("Newest", first.as_deref()), ("Older", next.as_deref())]))
            } @else {
                (web::nothing_matches("No entry matches these filters.", path))
            }
        }))
    }
}

/// The latest entries about one thing, as rows of a panel.
#[must_use]
pub fn recent(now: i64, words: &[Words], entries: &[AuditEntry]) -> Markup {
    html! {
        @for entry in entries {
            div.item {
                div { span { (sentence(entry, words)) } p { (web::ago(now, seconds(entry))) } }
                (result(entry))
            }
        }
    }
}

const fn seconds(entry: &AuditEntry) -> i64 {
    entry.at_ms.div_euclid(1000)
}

const fn day_of(entry: &AuditEntry) -> i64 {
    entry.at_ms.div_euclid(24 * 3600 * 1000)
}

/// An entry in a line, which opens to show all of it.
fn line(entry: &AuditEntry, words: &[Words]) -> Markup {
    let mono = |text: &str| html! { @if !text.is_empty() { span.mono { (text) } } };
    let all = [
        ("Entry", html! { "#" (entry.number) }),
        ("Action", mono(&entry.action)),
        ("Target", mono(&clean(&entry.target))),
        ("Detail", detail_markup(&entry.detail)),
        ("Source", mono(&entry.source)),
        ("Service", mono(&entry.service)),
        ("Request", mono(&entry.request_id)),
        ("Hash", mono(&entry.hash)),
    ];
    let known: Vec<_> = all.into_iter().filter(|(_, value)| !value.0.is_empty()).collect();
    html! {
        details.entry {
            summary {
                (web::clock(seconds(entry)))
                span.who { @if entry.actor == NOBODY { "Unknown" } @else { (clean(&entry.actor)) } }
                span.what { (sentence(entry, words)) }
                (result(entry))
            }
            (web::facts(&known))
        }
    }
}

/// What an entry says: `Created account lin`, `Login to mcr: wrong code`.
fn sentence(entry: &AuditEntry, words: &[Words]) -> Markup {
    let is_done = entry.outcome == "done";
    // What was refused has its reason at the beginning of its detail.
    let is_about = |words: &&Words| words.action == entry.action && entry.detail.starts_with(words.detail);
    let known = words.iter().chain(&SHARED).find(is_about);
    let verb = known.map_or(entry.action.as_str(), |words| if is_done { words.done } else { words.tried });
    let is_login = entry.action == "login";
    html! {
        (verb) " "
        @if is_login {
            b { (entry.service) }
            @if entry.actor == NOBODY && !entry.target.is_empty() { " as " b { (clean(&entry.target)) } }
        } @else if entry.target != entry.actor {
            b { (clean(&entry.target)) }
        }
        @if !is_done && !entry.detail.is_empty() { ": " (in_sentence(&detail(&entry.detail))) }
    }
}

/// The first letter of a reason is small after a colon.
fn in_sentence(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}

fn result(entry: &AuditEntry) -> Markup {
    match (entry.outcome.as_str(), entry.action.as_str()) {
        ("done", "login") => web::state(Tone::Good, "Allowed"),
        ("done", _) => web::state(Tone::Good, "Done"),
        _ => web::pill(Tone::Bad, "Denied"),
    }
}

/// How many refusals an entry stands for: those of a while are coalesced, `wrong-login (12 times)`.
#[must_use]
pub fn times(entry: &AuditEntry) -> u64 {
    entry
        .detail
        .split_once(" (")
        .and_then(|(_, rest)| rest.split_once(" times"))
        .map_or(1, |(count, _)| count.parse().unwrap_or(1))
}

/// The detail of an entry as a person reads it.
fn detail(text: &str) -> String {
    match text.split_once(" (") {
        Some((reason, rest)) => format!("{} ({rest}", reason_words(reason)),
        None => reason_words(text).to_owned(),
    }
}

/// The same, with what only machines compare in their letters.
fn detail_markup(text: &str) -> Markup {
    let is_digest = |word: &str| word.len() >= 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    html! {
        @for (at, word) in detail(text).split(' ').enumerate() {
            @if at > 0 { " " }
            @if is_digest(word) || word.contains('=') { span.mono { (word) } } @else { (word) }
        }
    }
}

/// Reasons, which are words for programs, as sentences.
fn reason_words(text: &str) -> &str {
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

fn verdict_note(verdict: &VerifyAuditResponse, verify: &str, csrf: &str) -> Markup {
    let VerifyAuditResponse { last_entry, last_hash, problem, .. } = verdict;
    if let Some(problem) = problem {
        return web::note(Tone::Bad, html! { p { strong { "Chain broken. " } (problem) } });
    }
    let checkpoint = html! { code { (last_entry) ":" (last_hash) } };
    if verdict.complete {
        let text = html! { p { strong { "Chain verified to #" (last_entry) ". " } "Store this checkpoint elsewhere: " (checkpoint) } };
        return web::note(Tone::Good, text);
    }
    // A long log takes longer than a request may: so many entries at a time.
    web::note(
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

/// Actions of every service.
const SHARED: [Words; 12] = [
    Words::new("audit.list", "Listed audit log", "List audit log"),
    Words::new("audit.export", "Exported audit log", "Export audit log"),
    Words::new("audit.verify", "Verified audit log", "Verify audit log"),
    Words::new("policy.get", "Read policy", "Read policy"),
    Words::new("policy.set", "Changed policy", "Change policy"),
    Words::new("policy.check", "Checked a draft of the policy", "Check a draft of the policy"),
    Words::new("policy.explain", "Explained policy for", "Explain policy for"),
    Words::new("policy.list-revisions", "Listed policy history", "List policy history"),
    Words::new("policy.get-revision", "Read policy revision", "Read policy revision"),
    Words::new("policy.diff", "Compared policy revisions", "Compare policy revisions"),
    Words::new("page", "Opened page", "Open page"),
    Words::new("form", "Sent form", "Send form"),
];

const OUTCOMES: [Choice<'static>; 3] = [
    Choice { value: "", label: "Any result" },
    Choice { value: "done", label: "Done or allowed" },
    Choice { value: "refused", label: "Denied" },
];

const PERIODS: [Choice<'static>; 5] = [
    Choice { value: "", label: "Any time" },
    Choice { value: "1", label: "Last hour" },
    Choice { value: "24", label: "Last 24 hours" },
    Choice { value: "168", label: "Last 7 days" },
    Choice { value: "720", label: "Last 30 days" },
];

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_796_063_380;
    const WORDS: [Words; 4] = [
        Words::where_detail("account.update", "enabled=false", "Disabled account"),
        Words::new("account.update", "Changed account", "Change account"),
        Words::new("account.create", "Created account", "Create account"),
        Words::new("login", "Logged in to", "Log in to"),
    ];

    fn show(search: &Search, found: &ListAuditResponse, verdict: Option<&VerifyAuditResponse>) -> String {
        page(("/audit", "/audit/verify", "token"), NOW, &WORDS, search, found, verdict).into_string()
    }

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
            show(&Search::default(), &ListAuditResponse::default(), Some(verdict))
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
        let search = Search { account: "bob & co".to_owned(), hours: "24".to_owned(), ..Search::default() };
        let entries = vec![AuditEntry { number: 51, at_ms: NOW * 1000, ..AuditEntry::default() }];
        let found = ListAuditResponse { entries, next: Some("51".to_owned()) };
        let shown = show(&search, &found, None);
        for part in [
            "/audit?account=bob+%26+co&amp;hours=24&amp;before=51",
            // Each filter is taken away by itself.
            r#"<a href="/audit?hours=24">Account: bob &amp; co"#,
            r#"<a href="/audit?account=bob+%26+co">Period: Last 24 hours"#,
        ] {
            assert!(shown.contains(part), "{part} is not in {shown}");
        }
        let request = search.request(NOW);
        assert_eq!(request.account.as_deref(), Some("bob & co"));
        assert_eq!((request.action, request.since_ms), (None, Some((NOW - 86_400) * 1000)));
        assert_eq!(Search { hours: "x".to_owned(), ..Search::default() }.request(NOW).since_ms, None);
    }

    /// A page's text without its tags.
    fn text(markup: &Markup) -> String {
        let parts =
            markup.0.split('<').filter_map(|part| part.split_once('>').map(|(_, text)| text).or(Some(part)));
        parts.collect()
    }

    #[test]
    fn an_entry_is_a_sentence() {
        let entry = |actor: &str, action: &str, target: &str, outcome: &str, detail: &str| {
            let [actor, action, target] = [actor, action, target].map(str::to_owned);
            let (outcome, detail, service) = (outcome.to_owned(), detail.to_owned(), "mcr".to_owned());
            AuditEntry { actor, action, target, outcome, detail, service, ..AuditEntry::default() }
        };
        for (entry, expect) in [
            (entry("ada", "account.create", "lin", "done", "type=human"), "Created account lin"),
            (
                entry("gus", "account.create", "lin", "refused", "forbidden"),
                "Create account lin: not permitted",
            ),
            (entry("ada", "account.update", "lin", "done", "enabled=false tags="), "Disabled account lin"),
            (entry("ada", "account.update", "lin", "done", "tags="), "Changed account lin"),
            (
                entry("gus", "account.update", "lin", "refused", "forbidden"),
                "Change account lin: not permitted",
            ),
            (entry("ada", "login", "ada", "done", ""), "Logged in to mcr"),
            (entry("ada", "login", "ada", "refused", "wrong-code"), "Log in to mcr: wrong code"),
            (
                entry("-", "login", "eve", "refused", "wrong-login"),
                "Log in to mcr as eve: wrong username, password or passkey",
            ),
            (entry("ada", "zone.sign", "a.example", "done", ""), "zone.sign a.example"),
        ] {
            assert_eq!(text(&sentence(&entry, &WORDS)).trim_end(), expect);
        }
    }

    #[test]
    fn words_of_machines_are_in_their_letters() {
        let digest = "0123456789abcdef".repeat(4);
        let shown = detail_markup(&format!("1 rule, SHA-256 {digest}")).0;
        assert_eq!(shown, format!("1 rule, SHA-256 <span class=\"mono\">{digest}</span>"));
        assert_eq!(detail_markup("type=<a>").0, "<span class=\"mono\">type=&lt;a&gt;</span>");
        assert_eq!(detail_markup("wrong-code").0, "Wrong code");
        assert_eq!(detail_markup("").0, "");
    }

    #[test]
    fn what_no_entry_matches_leads_back_to_all() {
        let search = Search { account: "nobody".to_owned(), ..Search::default() };
        let shown = show(&search, &ListAuditResponse::default(), None);
        assert!(shown.contains(r#"<a class="btn" href="/audit">Clear filters</a>"#), "{shown}");
        assert!(!shown.contains("class=\"foot\""), "{shown}");
        // An action with several words is one choice.
        assert_eq!(shown.matches("value=\"account.update\"").count(), 1, "{shown}");
    }

    #[test]
    fn coalesced_refusals_are_counted() {
        let entry = |detail: &str| AuditEntry { detail: detail.to_owned(), ..AuditEntry::default() };
        for (text, expect, shown) in [
            ("wrong-login", 1, "Wrong username, password or passkey"),
            ("wrong-login (12 times)", 12, "Wrong username, password or passkey (12 times)"),
            ("forbidden (3 times, of several)", 3, "Not permitted (3 times, of several)"),
            ("type=human (x", 1, "type=human (x"),
            ("", 1, ""),
        ] {
            assert_eq!((times(&entry(text)), detail(text).as_str()), (expect, shown));
        }
    }

    #[test]
    fn entries_are_below_their_days() {
        let entry = |number, at_ms| AuditEntry { number, at_ms, ..AuditEntry::default() };
        let entries =
            vec![entry(3, NOW * 1000), entry(2, (NOW - 10) * 1000), entry(1, (NOW - 86_400) * 1000)];
        let shown = show(&Search::default(), &ListAuditResponse { entries, next: None }, None);
        assert_eq!(shown.matches("<h2 class=\"day\">").count(), 2, "{shown}");
        assert!(
            shown.contains("Today, 30 November 2026 (UTC)") && shown.contains("3–1, newest first"),
            "{shown}"
        );
        assert!(!shown.contains("style="), "{shown}");
    }
}
