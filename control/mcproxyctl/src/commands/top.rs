//! `top`: a live view that is drawn anew each second.
//!
//! A frame is a function of two answers and the time between them; the terminal is put back as it was however
//! the view ends.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use anyhow::Context as _;
use crossterm::event::{Event, KeyCode, KeyModifiers, poll, read};
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use crossterm::{cursor, queue};
use mc_api::mcproxy::client::Client;
use mc_api::mcproxy::{BackendState, GetStatsRequest, ListBackendsRequest, RouteKey, Stats};
use mcdsl::ctl::{Printer, duration, table};
use mcdsl::terminal::bytes;

use super::{health_word, refusals};
use crate::error::Error;

/// Routes that are asked for.
const ROUTES: u32 = 100;

/// Time between frames.
const REFRESH: Duration = Duration::from_secs(1);

/// What one frame is drawn from.
#[derive(Clone, Debug, Default)]
struct Sample {
    stats: Stats,
    backends: Vec<BackendState>,
}

/// The terminal in the view's mode; put back when this goes.
struct Screen;

impl Screen {
    fn enter(out: &mut impl Write) -> io::Result<Self> {
        enable_raw_mode()?;
        let screen = Self;
        queue!(out, EnterAlternateScreen, cursor::Hide)?;
        out.flush()?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // There is nobody left to tell if it fails.
        drop(crossterm::execute!(io::stderr(), cursor::Show, LeaveAlternateScreen));
        drop(disable_raw_mode());
    }
}

pub(crate) async fn run(once: bool, client: &mut Client, printer: &mut Printer<'_>) -> Result<(), Error> {
    let mut before = sample(client).await?;
    if once {
        tokio::time::sleep(REFRESH).await;
        let now = sample(client).await?;
        return Ok(printer.out.write_all(frame(&before, &now, usize::MAX, usize::MAX).as_bytes())?);
    }
    let mut terminal = io::stderr();
    let screen = Screen::enter(&mut terminal).context("`top` needs a terminal; --once does not")?;
    loop {
        if !wait_for_key().await? {
            drop(screen);
            return Ok(());
        }
        let now = sample(client).await?;
        let (columns, rows) = size()?;
        let text = frame(&before, &now, columns.into(), rows.into());
        queue!(terminal, cursor::MoveTo(0, 0))?;
        for line in text.lines() {
            write!(terminal, "{line}\x1b[K\r\n")?;
        }
        write!(terminal, "\x1b[J")?;
        terminal.flush()?;
        before = now;
    }
}

async fn sample(client: &mut Client) -> Result<Sample, Error> {
    let stats = client.get_stats(GetStatsRequest { top: ROUTES }).await?.into_inner();
    let backends = client.list_backends(ListBackendsRequest {}).await?.into_inner().backends;
    Ok(Sample { stats, backends })
}

/// Waits for the next frame; `false`: the view shall end.
async fn wait_for_key() -> Result<bool, Error> {
    let wait = || -> io::Result<bool> {
        if !poll(REFRESH)? {
            return Ok(true);
        }
        let Event::Key(key) = read()? else { return Ok(true) };
        let interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
        Ok(!interrupt && !matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
    };
    Ok(tokio::task::spawn_blocking(wait).await.context("the keyboard cannot be read")??)
}

/// The view's text, at most so many columns and rows.
fn frame(before: &Sample, now: &Sample, columns: usize, rows: usize) -> String {
    let elapsed_ms = now.stats.uptime_ms.saturating_sub(before.stats.uptime_ms).max(1);
    let rate = |now: u64, before: u64| now.saturating_sub(before) * 1000 / elapsed_ms;
    let (stats, old) = (&now.stats, &before.stats);
    let mut text = format!(
        "mc-proxy up {}, revision {}   {} connections/s   {} active   in {}/s   out {}/s\n",
        duration(stats.uptime_ms),
        stats.revision,
        rate(stats.accepted, old.accepted),
        stats.active,
        bytes(rate(stats.bytes_in, old.bytes_in)),
        bytes(rate(stats.bytes_out, old.bytes_out)),
    );
    let refused: Vec<String> =
        refusals(stats).iter().take(6).map(|(word, count)| format!("{word} {count}")).collect();
    let refused = if refused.is_empty() { "none".to_owned() } else { refused.join(", ") };
    writeln!(text, "refused: {refused}\n").expect("writing to a String cannot fail");
    let totals: HashMap<Option<&RouteKey>, u64> =
        old.routes.iter().map(|route| (route.key.as_ref(), route.total)).collect();
    let routes = stats.routes.iter().map(|route| {
        let key = route.key.clone().unwrap_or_default();
        let before = totals.get(&route.key.as_ref()).copied().unwrap_or(route.total);
        let name = if key.alpn.is_empty() { key.name } else { format!("{}#{}", key.name, key.alpn) };
        let numbers = [rate(route.total, before), route.active, route.total, route.failed];
        let mut row = vec![key.listener, name];
        row.extend(numbers.map(|number| number.to_string()));
        row
    });
    let head = ["LISTENER", "ROUTE", "CONN/S#", "ACTIVE#", "TOTAL#", "FAILED#"];
    let routes = table(&head, &routes.collect::<Vec<_>>());
    let backends = now.backends.iter().map(|backend| {
        let drain = if backend.draining { ", draining" } else { "" };
        let health = format!("{}{drain}", health_word(backend.health()));
        let numbers = [backend.connections, backend.total, backend.failures];
        let mut row = vec![backend.address.clone(), health];
        row.extend(numbers.map(|number| number.to_string()));
        row
    });
    let head = ["BACKEND", "HEALTH", "ACTIVE#", "TOTAL#", "FAILED#"];
    let backends = table(&head, &backends.collect::<Vec<_>>());
    // Backends keep half of the rows below the head; routes get the rest.
    let room = rows.saturating_sub(text.lines().count() + 2);
    let below = backends.lines().count().min(room / 2);
    let above = room - below;
    let routes = routes.lines().take(above);
    for line in routes.chain([""]).chain(backends.lines().take(below)) {
        text.push_str(line);
        text.push('\n');
    }
    text.lines().fold(String::new(), |mut cut, line| {
        cut.extend(line.chars().take(columns));
        cut.push('\n');
        cut
    })
}

#[cfg(test)]
mod tests {
    use mc_api::mcproxy::{Health, RouteStats};

    use super::*;

    fn sample(uptime_ms: u64, accepted: u64, total: u64) -> Sample {
        let key = RouteKey { listener: "web".into(), name: "a.test".into(), alpn: String::new() };
        let route = RouteStats { key: Some(key), total, active: 3, ..RouteStats::default() };
        let outcomes = [("no_route".to_owned(), 7), ("completed".to_owned(), 5)].into();
        let stats =
            Stats { uptime_ms, accepted, active: 3, outcomes, routes: vec![route], ..Stats::default() };
        let backend = BackendState {
            address: "10.0.0.2:443".into(),
            health: Health::Down.into(),
            ..BackendState::default()
        };
        Sample { stats, backends: vec![backend; 40] }
    }

    #[test]
    fn a_frame_shows_rates_refusals_routes_and_backends() {
        let text = frame(&sample(1000, 10, 100), &sample(3000, 50, 160), usize::MAX, usize::MAX);
        assert!(text.contains("20 connections/s   3 active"), "{text}");
        assert!(text.contains("refused: no_route 7\n"), "{text}");
        assert!(text.contains("web       a.test      30       3    160"), "{text}");
        assert!(text.contains("10.0.0.2:443  down"), "{text}");
    }

    #[test]
    fn a_frame_fits_the_terminal() {
        let text = frame(&sample(0, 0, 0), &sample(1000, 1, 1), 40, 24);
        assert!(text.lines().count() <= 24, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
        assert!(text.contains("BACKEND"), "{text}");
    }
}
