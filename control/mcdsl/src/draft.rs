//! A draft of a policy, as a person writes it: TOML as `policy export` prints it, or JSON.

use mc_api::policy::{PolicyDraft, Rule};
use serde::Deserialize;

use crate::config::{self, Hints};

/// What a draft has; the revision of an exported policy says nothing about it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default, rename = "revision")]
    _revision: Option<i64>,
    default: String,
    #[serde(default)]
    rules: Vec<Rule>,
}

/// Reads a draft; what is wrong calls the text `name`. Whether its words make sense, MCIAS says.
///
/// # Errors
/// It is not a policy: what is wrong, and where.
pub fn parse(text: &str, name: &str) -> Result<PolicyDraft, String> {
    // No TOML document begins so.
    let Written { default, rules, .. } = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| format!("{name}: {error}"))?
    } else {
        let hints = Hints { example: |_key| "", within: |_tree, _path| None };
        config::read(text, name, hints).map_err(|problem| problem.to_string())?
    };
    Ok(PolicyDraft { default, rules })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toml_and_json_are_the_same_draft() {
        let rule = "name = \"a\"\npriority = 7\neffect = \"deny\"\nroles = [\"guest\"]\n";
        let toml = format!("revision = 3\ndefault = \"allow\"\n[[rules]]\n{rule}");
        let json =
            r#" {"default":"allow","rules":[{"name":"a","priority":7,"effect":"deny","roles":["guest"]}]}"#;
        let draft = parse(&toml, "draft").unwrap();
        assert_eq!(draft, parse(json, "draft").unwrap());
        assert_eq!((draft.rules[0].name.as_str(), draft.rules[0].priority), ("a", 7));
        assert_eq!(parse("default = \"deny\"", "draft").unwrap().rules, []);
    }

    #[test]
    fn what_is_no_draft_is_refused_with_its_place() {
        let deep = "[".repeat(100_000);
        for (text, expect) in [
            ("", "default"),
            ("default = 1", "draft:1:"),
            ("default = \"allow\"\nrule = []", "rule"),
            ("default = \"allow\"\n[[rules]]\nname = \"a\"", "draft:2"),
            ("{\"default\":\"allow\",\"x\":1}", "unknown field `x`"),
            ("{", "draft: EOF"),
            (&format!("{{\"rules\":{deep}"), "draft: "),
            (&format!("default = {deep}"), "draft:1:"),
        ] {
            let error = parse(text, "draft").unwrap_err();
            assert!(error.contains(expect), "{:?}: {error}", text.chars().take(60).collect::<String>());
        }
    }
}
