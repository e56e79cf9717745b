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

    /// What the command line calls a field of the server's messages; fields within a file (`rules[0].name`) keep their names.
    pub(super) fn option_of<'a>(&self, field: &'a str) -> &'a str {
        let known = self.fields.iter().chain(FRAME_FIELDS);
        known.copied().find(|(name, _)| *name == field).map_or(field, |(_, option)| option)
    }
}

/// Fields that the frame's own commands fill: those of the audit log.
const FRAME_FIELDS: &[(&str, &str)] = &[
    ("after_entry", "--from-checkpoint"),
    ("after_hash", "--from-checkpoint"),
    ("since_ms", "--since"),
    ("until_ms", "--until"),
];
