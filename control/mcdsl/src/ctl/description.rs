//! What a ctl says of itself to the frame.

/// What is different in each ctl.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// `mciasctl`
    pub name: &'static str,
    /// `mcias`: the key of its address in contexts, and in capitals the prefix of its variables.
    pub service: &'static str,
    /// Of the program.
    pub version: &'static str,
    /// One line.
    pub about: &'static str,
    /// The server's names of fields, and what the command line calls them: `("lifetime_seconds", "--lifetime")`.
    pub fields: &'static [(&'static str, &'static str)],
    /// Lines of examples for `--help`, indented.
    pub examples: &'static str,
    /// Address where neither option, context nor variable has one.
    pub default_server: &'static str,
}

impl Program {
    /// `MCIAS_SERVER` for `SERVER`.
    pub(super) fn variable(&self, suffix: &str) -> String {
        format!("{}_{suffix}", self.service.to_ascii_uppercase())
    }

    /// What the command line calls a field of the server's messages, or an entry of a field that is a list (`tags[1]`); fields within a file
    /// (`rules[0].name`) keep their names.
    pub(super) fn option_of<'a>(&self, field: &'a str) -> &'a str {
        let list = field.strip_suffix(']').and_then(|field| field.rsplit_once('['));
        let list = list.filter(|(_, index)| index.bytes().all(|byte| byte.is_ascii_digit()));
        let asked = [Some(field), list.map(|(list, _)| list)];
        let known = || self.fields.iter().chain(FRAME_FIELDS).copied();
        let of = |asked| known().find(|(name, _)| *name == asked).map(|(_, option)| option);
        asked.into_iter().flatten().find_map(of).unwrap_or(field)
    }
}

/// Fields that the frame's own commands fill: those of the audit log.
const FRAME_FIELDS: &[(&str, &str)] = &[
    ("after_entry", "--from-checkpoint"),
    ("after_hash", "--from-checkpoint"),
    ("since_ms", "--since"),
    ("until_ms", "--until"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_a_list_are_their_option_s() {
        let program = Program {
            name: "ctl",
            service: "test",
            version: "1",
            about: "",
            fields: &[("tags", "--tag"), ("other.tags", "--other-tag")],
            examples: "",
            default_server: "",
        };
        for (field, option) in [
            ("tags", "--tag"),
            ("tags[12]", "--tag"),
            ("other.tags[0]", "--other-tag"),
            ("since_ms", "--since"),
            ("rules[0].tags[1]", "rules[0].tags[1]"),
            ("tags[x]", "tags[x]"),
            ("name", "name"),
        ] {
            assert_eq!(program.option_of(field), option);
        }
    }
}
