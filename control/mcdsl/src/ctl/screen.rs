//! The terminal that standard output leads to: its size, its colours, and the pager for long tables.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::{Command, Stdio};

use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

/// Properties of standard output. The default is that of a file or a pipe: no limits, no colours, no pager.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Screen {
    /// Width in columns.
    pub(super) width: Option<usize>,
    /// Height in lines.
    pub(super) height: Option<usize>,
    /// Whether states have colours.
    pub(super) colour: bool,
    /// Shell command for tables that are higher than the screen.
    pub(super) pager: Option<String>,
}

impl Screen {
    /// The screen of this process.
    pub(super) fn of_stdout(no_pager: bool) -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        let size = terminal_size::terminal_size_of(io::stdout());
        let size = size.map(|(width, height)| (usize::from(width.0), usize::from(height.0)));
        Self::new(io::stdout().is_terminal(), size, no_pager, variable)
    }

    fn new(
        is_terminal: bool,
        size: Option<(usize, usize)>,
        no_pager: bool,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Self {
        if !is_terminal {
            return Self::default();
        }
        let is_set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
        let (width, height) = size.filter(|size| size.0 > 0 && size.1 > 0).unwrap_or((80, 24));
        let is_dumb = variable("TERM").is_some_and(|value| value == "dumb");
        let pager = variable("PAGER").unwrap_or_else(|| "less".to_owned());
        Self {
            width: Some(width),
            height: Some(height),
            // https://no-color.org
            colour: !is_set("NO_COLOR") && !is_dumb,
            pager: Some(pager).filter(|pager| !no_pager && !is_dumb && !pager.trim().is_empty()),
        }
    }

    /// Shows a text in the pager if it is higher than the screen. `false`: it was not shown.
    pub(super) fn page(&self, text: &str) -> io::Result<bool> {
        let (Some(pager), Some(height)) = (&self.pager, self.height) else { return Ok(false) };
        if text.lines().count() < height {
            return Ok(false);
        }
        let mut command = Command::new("sh");
        command.arg("-c").arg(pager).stdin(Stdio::piped());
        if std::env::var_os("LESS").is_none() {
            // Leave when it fits, pass colours through, leave the text on the screen: as git does.
            command.env("LESS", "FRX");
        }
        // Ctrl-C belongs to the pager while it runs.
        let _interrupts = Handle::try_current().ok().and_then(|_| signal(SignalKind::interrupt()).ok());
        let mut child = command.spawn()?;
        let written = child.stdin.take().map_or(Ok(()), |mut input| input.write_all(text.as_bytes()));
        let status = child.wait()?;
        match written {
            // The user has left the pager, or there is none (127, POSIX sh).
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(status.code() != Some(127)),
        }
    }
}

/// Colour of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tone {
    Good,
    Warning,
    Bad,
    Off,
}

/// The tone of a state word, if it has one.
fn tone(state: &str) -> Option<Tone> {
    match state.to_ascii_lowercase().as_str() {
        "active" | "valid" | "healthy" | "live" | "allow" | "allowed" | "done" | "intact" | "signing" => {
            Some(Tone::Good)
        }
        "degraded" | "pending" | "draining" | "waiting" | "expiring" => Some(Tone::Warning),
        "down" | "denied" | "deny" | "failed" | "refused" | "revoked" | "broken" => Some(Tone::Bad),
        "disabled" | "expired" | "stopped" | "retired" | "rolled back" => Some(Tone::Off),
        _ => None,
    }
}

/// A state word in its colour; `text` may be padded.
pub(super) fn in_colour(text: &str) -> String {
    let code = match tone(text.trim()) {
        Some(Tone::Good) => "32",
        Some(Tone::Warning) => "33",
        Some(Tone::Bad) => "31",
        Some(Tone::Off) => "2",
        None => return text.to_owned(),
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(is_terminal: bool, no_pager: bool, variables: &[(&str, &str)]) -> Screen {
        let find = |name: &str| variables.iter().find(|it| it.0 == name).map(|it| it.1.to_owned());
        Screen::new(is_terminal, Some((100, 30)), no_pager, find)
    }

    #[test]
    fn colours_and_pager_are_for_terminals() {
        let plain = screen(true, false, &[]);
        assert_eq!((plain.width, plain.height, plain.colour), (Some(100), Some(30), true));
        assert_eq!(plain.pager.as_deref(), Some("less"));
        assert_eq!(screen(false, false, &[("PAGER", "more")]), Screen::default());
        assert!(!screen(true, false, &[("NO_COLOR", "1")]).colour);
        assert!(screen(true, false, &[("NO_COLOR", "")]).colour);
        assert_eq!(screen(true, false, &[("PAGER", "more")]).pager.as_deref(), Some("more"));
        for none in [screen(true, true, &[]), screen(true, false, &[("PAGER", "")])] {
            assert_eq!(none.pager, None);
        }
        let dumb = screen(true, false, &[("TERM", "dumb")]);
        assert!(!dumb.colour && dumb.pager.is_none());
    }

    #[test]
    fn only_known_states_have_a_colour() {
        assert_eq!(in_colour("Denied "), "\x1b[31mDenied \x1b[0m");
        assert_eq!(in_colour("bob"), "bob");
    }

    #[test]
    fn only_what_is_higher_than_the_screen_is_paged() {
        let screen =
            |pager: &str| Screen { height: Some(3), pager: Some(pager.to_owned()), ..Screen::default() };
        assert!(!screen("exit 1").page("a\nb\n").unwrap());
        assert!(screen("cat >/dev/null").page("a\nb\nc\n").unwrap());
        assert!(!screen("no-such-pager-anywhere 2>/dev/null").page("a\nb\nc\n").unwrap());
        assert!(screen("exit 0").page(&"line\n".repeat(100_000)).unwrap());
        assert!(!Screen::default().page(&"line\n".repeat(100)).unwrap());
    }
}
