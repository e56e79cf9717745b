//! The audit log's commands: the same for every service.

use clap::{Args, Subcommand};
use mc_api::audit::audit_client::AuditClient;
use mc_api::audit::{AuditEntry, ExportAuditRequest, ListAuditRequest, VerifyAuditRequest};
use mc_api::client::Connection;

use super::{Column, Ctl, Error, Exit, Moment, when};
use crate::clock::Clock;
use crate::terminal::Progress;

/// `audit` and what follows it.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// List entries, newest first
    #[command(after_help = "Example:\n  {ctl} audit list --account bob --outcome refused --since 7d")]
    List {
        #[command(flatten)]
        filter: Filter,
        /// Maximum number of entries
        #[arg(long, value_name = "COUNT", default_value_t = 100)]
        limit: u32,
    },
    /// Export entries, oldest first, one JSON object per line
    #[command(after_help = "Example:\n  {ctl} audit export --since 2026-11-01 > november.jsonl")]
    Export(Filter),
    /// Verify that each entry follows from the one before; prints a checkpoint to keep elsewhere
    #[command(
        after_help = "Example:\n  {ctl} audit verify --from-checkpoint 535:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    )]
    Verify {
        /// Start after the checkpoint of an earlier verification, which must still be in the log
        #[arg(long, value_name = "NUMBER:HASH", value_parser = checkpoint)]
        from_checkpoint: Option<(i64, String)>,
    },
}

/// Which entries.
#[derive(Debug, Args)]
pub struct Filter {
    /// Only what this account did, or what was done to it
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// Only this action: login, account.create
    #[arg(long)]
    action: Option<String>,
    /// Only this outcome
    #[arg(long, value_parser = ["done", "refused"])]
    outcome: Option<String>,
    /// Only what was done to this target
    #[arg(long)]
    target: Option<String>,
    /// Only from this time on: 2026-11-30, 2026-11-30T09:13:00Z, or an age (7d)
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Only before this time
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
}

fn checkpoint(text: &str) -> Result<(i64, String), String> {
    let parsed =
        text.split_once(':').and_then(|(number, hash)| Some((number.parse().ok()?, hash.to_owned())));
    parsed.ok_or_else(|| "expected the checkpoint that `audit verify` printed, NUMBER:HASH".to_owned())
}

/// Runs one. `check_account` is an error for an account that does not exist: its name in a filter is then a mistake. It is asked only
/// where nothing was found, as the log remembers deleted accounts.
///
/// # Errors
/// The server refused, or cannot be reached; or the log is not intact.
pub async fn run(
    ctl: &mut Ctl<'_>,
    connection: Connection,
    check_account: impl AsyncFnOnce(String) -> Result<(), Error>,
    command: Audit,
) -> Result<(), Error> {
    let audit = AuditClient::new(connection);
    match command {
        Audit::List { filter, limit } => {
            let account = filter.account.clone();
            let found = list(audit, filter, limit).await?;
            // Before anything is printed: an error has no table above it.
            if let (Some(account), true) = (account, found.is_empty()) {
                check_account(account).await?;
            }
            print(ctl, &found)
        }
        Audit::Export(filter) => {
            let account = filter.account.clone();
            let is_found = export(ctl, audit, filter).await?;
            match account {
                Some(account) if !is_found => check_account(account).await,
                _ => Ok(()),
            }
        }
        Audit::Verify { from_checkpoint } => verify(ctl, audit, from_checkpoint).await,
    }
}

async fn list(
    mut audit: AuditClient<Connection>,
    filter: Filter,
    limit: u32,
) -> Result<Vec<AuditEntry>, Error> {
    let [since_ms, until_ms] = filter.times();
    let Filter { account, action, outcome, target, .. } = filter;
    let mut request =
        ListAuditRequest { limit: None, before: None, account, action, outcome, target, since_ms, until_ms };
    let mut found: Vec<AuditEntry> = Vec::new();
    loop {
        let left = limit.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
        if left == 0 {
            break;
        }
        request.limit = Some(left.min(PAGE));
        let page = audit.list_audit(request.clone()).await?.into_inner();
        found.extend(page.entries);
        request.before = page.next;
        if request.before.is_none() {
            break;
        }
    }
    Ok(found)
}

fn print(ctl: &mut Ctl<'_>, found: &[AuditEntry]) -> Result<(), Error> {
    let cells = |entry: &AuditEntry| {
        [
            entry.number.to_string(),
            when(entry.at_ms.div_euclid(1000)),
            entry.actor.clone(),
            entry.action.clone(),
            entry.target.clone(),
            entry.outcome.clone(),
            entry.source.clone(),
            entry.service.clone(),
            entry.detail.clone(),
        ]
    };
    Ok(ctl.printer.rows(found, COLUMNS, cells)?)
}

/// What happened and why it was refused is never left out.
const COLUMNS: [Column; 9] = [
    Column::number("NUMBER").rank(2),
    Column::exact("TIME"),
    Column::text("ACTOR"),
    Column::text("ACTION"),
    Column::text("TARGET"),
    Column::state("OUTCOME"),
    Column::text("SOURCE").rank(1),
    Column::text("SERVICE").rank(3),
    Column::text("DETAIL"),
];

/// Whether there are any.
async fn export(
    ctl: &mut Ctl<'_>,
    mut audit: AuditClient<Connection>,
    filter: Filter,
) -> Result<bool, Error> {
    let [since_ms, until_ms] = filter.times();
    let Filter { account, action, outcome, target, .. } = filter;
    let request = ExportAuditRequest { after: None, account, action, outcome, target, since_ms, until_ms };
    let mut entries = audit.export_audit(request).await?.into_inner();
    let progress = Progress::of_items("Exporting entries");
    let mut count = 0;
    while let Some(entry) = entries.message().await? {
        ctl.printer.json_line(&entry)?;
        count += 1;
        progress.set(count);
    }
    Ok(count > 0)
}

async fn verify(
    ctl: &mut Ctl<'_>,
    mut audit: AuditClient<Connection>,
    from: Option<(i64, String)>,
) -> Result<(), Error> {
    let start = from
        .as_ref()
        .map_or_else(|| "entry 1".to_owned(), |(number, _)| format!("entry {}", number.saturating_add(1)));
    let (after_entry, after_hash) = from.unzip();
    let mut request = VerifyAuditRequest { after_entry, after_hash, limit: None };
    let progress = Progress::of_items("Verifying entries");
    let verdict = loop {
        let slice = audit.verify_audit(request.clone()).await?.into_inner();
        if slice.complete || !slice.intact {
            break slice;
        }
        progress.set(slice.last_entry.unsigned_abs());
        request.after_entry = Some(slice.last_entry);
        request.after_hash = Some(slice.last_hash);
    };
    drop(progress);
    let mut lines = vec![
        ("intact", if verdict.intact { "yes" } else { "no" }.to_owned()),
        ("verified from", start),
        ("last entry", verdict.last_entry.to_string()),
    ];
    // Of a log that is not intact there is nothing to keep.
    if verdict.intact {
        lines.push(("checkpoint", format!("{}:{}", verdict.last_entry, verdict.last_hash)));
    }
    ctl.printer.record(&verdict, &lines)?;
    let problem = verdict.problem.unwrap_or_else(|| "the server does not say where".to_owned());
    if verdict.intact {
        return Ok(());
    }
    Err(Error::new(Exit::Unsound, format!("The audit log is not intact: {problem}")))
}

impl Filter {
    /// `since` and `until` in milliseconds since 1970.
    fn times(&self) -> [Option<i64>; 2] {
        let now = Clock::system().unix_s();
        [self.since, self.until].map(|moment| Some(moment?.unix_s(now).saturating_mul(1000)))
    }
}

/// Entries of one request.
const PAGE: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::super::screen::Screen;
    use super::super::table::render;
    use super::*;

    #[test]
    fn a_checkpoint_is_a_number_and_a_hash() {
        assert_eq!(checkpoint("535:9f86"), Ok((535, "9f86".to_owned())));
        for wrong in ["9f86", "x:9f86", ""] {
            assert!(checkpoint(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn at_80_columns_what_happened_and_why_is_there() {
        let row = [
            "123456",
            "2026-11-30 09:13",
            "administrator",
            "account.reset-factors",
            "a-long-name-of-an-account",
            "refused",
            "192.0.2.123",
            "mcias",
            "denied-by-policy: rule `no-guests-elsewhere` denies it",
        ];
        let screen = Screen { width: Some(80), ..Screen::default() };
        let text = render(&COLUMNS, &[row.map(str::to_owned).to_vec()], &screen);
        for column in
            ["TIME", "ACTOR", "ACTION", "TARGET", "OUTCOME", "DETAIL", "2026-11-30 09:13", "refused"]
        {
            assert!(text.contains(column), "{column}: {text}");
        }
    }
}
