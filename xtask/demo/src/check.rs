//! Runs the printed lines as a person would, in a shell, and holds them to what they promise.

use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;
use tokio::time::timeout;

use crate::lines::{Line, Promise, Site};

/// Runs all lines in their order.
///
/// # Errors
/// The first that does not do what it promises, with what it did.
pub(crate) async fn run(site: &Site) -> Result<()> {
    for line in site.lines() {
        eprintln!("up: {}", line.command);
        one(&line).await.with_context(|| format!("`{}` does not do what it promises", line.command))?;
    }
    eprintln!("up: every printed line does what it promises");
    Ok(())
}

async fn one(line: &Line) -> Result<()> {
    match &line.promise {
        Promise::Prints(texts) => {
            let output = shell("eval \"$1\"", &line.command).await?;
            let printed = said(&output);
            ensure!(output.status.success(), "{}: {printed}", output.status);
            contains(&printed, texts)
        }
        Promise::IsRefused(texts) => {
            let output = shell("eval \"$1\"", &line.command).await?;
            let printed = said(&output);
            ensure!(!output.status.success(), "it succeeded: {printed}");
            contains(&printed, texts)
        }
        Promise::GoesOn(texts) => {
            // A live view wants a terminal with a size, which `script` makes. `timeout` ends with 124 where it had to end
            // the program, which is what is promised.
            let output = shell(
                "timeout 3 script --quiet --command \"stty rows 40 cols 160; $1\" /dev/null",
                &line.command,
            )
            .await?;
            let printed = said(&output);
            ensure!(output.status.code() == Some(124), "it ended by itself, {}: {printed}", output.status);
            contains(&printed, texts)
        }
    }
}

/// Runs `how` in a shell, which has the line as `$1`.
async fn shell(how: &str, line: &str) -> Result<Output> {
    let mut shell = Command::new("sh");
    shell.args(["-c", how, "sh", line]).stdin(Stdio::null()).kill_on_drop(true);
    let Ok(output) = timeout(Duration::from_secs(30), shell.output()).await else {
        bail!("it has not ended after 30 s")
    };
    output.context("cannot start a shell")
}

fn contains(printed: &str, texts: &[String]) -> Result<()> {
    match texts.iter().find(|text| !printed.contains(*text)) {
        Some(missing) => bail!("it prints no `{missing}`: {printed}"),
        None => Ok(()),
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_is_held_to_its_promise() {
        let check = async |command: &str, promise, kept| {
            let line = Line { about: "", command: command.to_owned(), promise };
            let outcome = one(&line).await;
            assert_eq!(outcome.is_ok(), kept, "{command}: {outcome:?}");
        };
        let prints = |text: &str| Promise::Prints(vec![text.to_owned()]);
        check("echo yes", prints("yes"), true).await;
        check("echo no", prints("yes"), false).await;
        check("echo yes; exit 1", prints("yes"), false).await;
        let is_refused = |text: &str| Promise::IsRefused(vec![text.to_owned()]);
        check("echo why; false", is_refused("why"), true).await;
        check("false", is_refused("why"), false).await;
        check("echo why", is_refused("why"), false).await;
        check("test -t 1 && echo yes && sleep 60", Promise::GoesOn(vec!["yes".to_owned()]), true).await;
        check("echo yes", Promise::GoesOn(vec![]), false).await;
    }
}
