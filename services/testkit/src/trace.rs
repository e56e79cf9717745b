//! Judges a system call trace: was each change on the disk before it was acknowledged?
//!
//! The order that makes a change durable: its request is read, its bytes are written to the database's log,
//! the log is synced, and only then is the answer written. A kill cannot show a missing sync, because the
//! kernel keeps what was written; the order of the calls can.

/// How strace must run for [`violations`]: follow threads, name files, show enough of each buffer.
pub const STRACE: &[&str] = &[
    "strace",
    // The tracer is the grandchild, so that the proxy keeps its place and gets the signals.
    "-D",
    "-f",
    "-y",
    "--seccomp-bpf",
    "-s",
    "20000",
    "-e",
    "trace=fdatasync,fsync,pwrite64,pwritev,write,writev,sendto,sendmsg,read,readv,recvfrom,recvmsg",
];

/// One call: where in the trace it began and where it ended.
#[derive(Debug)]
struct Call<'a> {
    name: &'a str,
    begin: usize,
    end: usize,
    text: String,
}

/// For each change, known by a text that is in its request, its stored form and its answer: what is wrong with
/// the order of the calls. Empty: every change was durable before it was acknowledged.
#[must_use]
pub fn violations(trace: &str, changes: &[String]) -> Vec<String> {
    let calls = calls(trace);
    changes
        .iter()
        .filter_map(|change| judge(&calls, change).err().map(|why| format!("{change}: {why}")))
        .collect()
}

fn judge(calls: &[Call<'_>], change: &str) -> Result<(), &'static str> {
    let about = |call: &&Call<'_>| call.text.contains(change);
    let request = calls
        .iter()
        .filter(about)
        .filter(|call| READS.contains(&call.name) && !is_log(call))
        .map(|call| call.end)
        .min()
        .ok_or("its request is not in the trace")?;
    let answer = calls
        .iter()
        .filter(about)
        .filter(|call| SENDS.contains(&call.name) && is_socket(call) && call.begin > request)
        .map(|call| call.begin)
        .min()
        .ok_or("its answer is not in the trace")?;
    let written = calls
        .iter()
        .filter(about)
        .filter(|call| {
            WRITES.contains(&call.name) && is_log(call) && call.begin > request && call.end < answer
        })
        .map(|call| call.end)
        .min()
        .ok_or("acknowledged before it was written to the database's log")?;
    calls
        .iter()
        .any(|call| SYNCS.contains(&call.name) && is_log(call) && call.begin > written && call.end < answer)
        .then_some(())
        .ok_or("acknowledged before the database's log was synced")
}

/// The same where requests and answers are encrypted, and a change is known by its stored form alone: then there must be
/// one client, which waits for each answer before it asks again.
#[must_use]
pub fn violations_behind_tls(trace: &str, changes: &[String]) -> Vec<String> {
    let calls = calls(trace);
    changes
        .iter()
        .filter_map(|change| judge_behind_tls(&calls, change).err().map(|why| format!("{change}: {why}")))
        .collect()
}

fn judge_behind_tls(calls: &[Call<'_>], change: &str) -> Result<(), &'static str> {
    let written = calls
        .iter()
        .filter(|call| call.text.contains(change) && WRITES.contains(&call.name) && is_log(call))
        .min_by_key(|call| call.end)
        .ok_or("it is not in the database's log")?;
    let on_socket =
        |call: &&Call<'_>| is_socket(call) && (READS.contains(&call.name) || SENDS.contains(&call.name));
    let before =
        calls.iter().filter(on_socket).filter(|call| call.end < written.begin).max_by_key(|call| call.end);
    if before.is_none_or(|call| SENDS.contains(&call.name)) {
        return Err("acknowledged before it was written to the database's log");
    }
    let answer = calls
        .iter()
        .filter(on_socket)
        .filter(|call| SENDS.contains(&call.name) && call.begin > written.begin)
        .map(|call| call.begin)
        .min()
        .ok_or("its answer is not in the trace")?;
    calls
        .iter()
        .any(|call| {
            SYNCS.contains(&call.name) && is_log(call) && call.begin > written.end && call.end < answer
        })
        .then_some(())
        .ok_or("acknowledged before the database's log was synced")
}

/// The calls that succeeded, those cut in two put together again.
fn calls(trace: &str) -> Vec<Call<'_>> {
    let mut calls: Vec<Call<'_>> = Vec::new();
    let mut open: Vec<(&str, Call<'_>)> = Vec::new();
    for (at, line) in trace.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some(position) = open.iter().position(|(this, _)| *this == thread) else { continue };
            let mut call = open.swap_remove(position).1;
            call.end = at;
            call.text += resumed;
            calls.push(call);
        } else if let Some((name, arguments)) = rest.split_once('(') {
            let call = Call { name, begin: at, end: at, text: arguments.to_owned() };
            if rest.ends_with("<unfinished ...>") {
                open.push((thread, call));
            } else {
                calls.push(call);
            }
        }
    }
    calls.retain(|call| !call.text.rsplit(" = ").next().is_some_and(|result| result.starts_with('-')));
    calls
}

fn is_log(call: &Call<'_>) -> bool {
    file(call).is_some_and(|file| file.ends_with("-wal"))
}

fn is_socket(call: &Call<'_>) -> bool {
    file(call).is_some_and(|file| file.starts_with("socket:") || file.starts_with("UNIX"))
}

/// What the first argument is: `12</a/file>`.
fn file<'a>(call: &'a Call<'_>) -> Option<&'a str> {
    call.text.split_once('<')?.1.split_once('>').map(|(file, _)| file)
}

const READS: &[&str] = &["read", "readv", "recvfrom", "recvmsg"];
const SENDS: &[&str] = &["write", "writev", "sendto", "sendmsg"];
const WRITES: &[&str] = &["pwrite64", "pwritev", "write", "writev"];
const SYNCS: &[&str] = &["fdatasync", "fsync"];

#[cfg(test)]
mod tests {
    use super::*;

    const READ: &str = "10 recvfrom(9<socket:[1]>, \"..route-7..\", 100, 0, NULL, NULL) = 30\n";
    const WRITE: &str = "10 pwrite64(5</x/p.db-wal>, \"..route-7..\", 4096, 32) = 4096\n";
    const SYNC: &str = "10 fdatasync(5</x/p.db-wal>)    = 0\n";
    const ANSWER: &str = "10 writev(9<socket:[1]>, [{iov_base=\"route-7\"}], 1) = 30\n";

    fn check(trace: &[&str], expect: &str) {
        let found = violations(&trace.concat(), &["route-7".to_owned()]);
        assert_eq!(found.join(""), expect, "{trace:?}");
    }

    #[test]
    fn synced_before_acknowledged_is_right() {
        check(&[READ, WRITE, SYNC, ANSWER], "");
    }

    #[test]
    fn every_other_order_is_wrong() {
        check(
            &[READ, ANSWER, WRITE, SYNC],
            "route-7: acknowledged before it was written to the database's log",
        );
        check(&[READ, WRITE, ANSWER, SYNC], "route-7: acknowledged before the database's log was synced");
        check(&[READ, SYNC, WRITE, ANSWER], "route-7: acknowledged before the database's log was synced");
        check(&[WRITE, SYNC, ANSWER], "route-7: its request is not in the trace");
        check(&[READ, WRITE, SYNC], "route-7: its answer is not in the trace");
    }

    fn check_behind_tls(trace: &[&str], expect: &str) {
        let sealed = trace
            .concat()
            .replace("recvfrom(9<socket:[1]>, \"..route-7..\"", "recvfrom(9<socket:[1]>, \"..\"");
        let found = violations_behind_tls(&sealed.replace("\"route-7\"", "\"..\""), &["route-7".to_owned()]);
        assert_eq!(found.join(""), expect, "{trace:?}");
    }

    #[test]
    fn behind_tls_the_order_alone_shows_it() {
        check_behind_tls(&[READ, WRITE, SYNC, ANSWER], "");
        check_behind_tls(
            &[READ, ANSWER, WRITE, SYNC],
            "route-7: acknowledged before it was written to the database's log",
        );
        let late = "route-7: acknowledged before the database's log was synced";
        check_behind_tls(&[READ, WRITE, ANSWER, SYNC], late);
        check_behind_tls(&[READ, SYNC, WRITE, ANSWER], late);
        check_behind_tls(&[READ, SYNC, ANSWER], "route-7: it is not in the database's log");
        check_behind_tls(&[READ, WRITE, SYNC], "route-7: its answer is not in the trace");
    }

    #[test]
    fn a_sync_that_fails_or_ends_too_late_does_not_count() {
        let failed = SYNC.replace("= 0", "= -1 EIO (Input/output error)");
        let late = "route-7: acknowledged before the database's log was synced";
        check(&[READ, WRITE, &failed, ANSWER], late);
        let begun = "11 fdatasync(5</x/p.db-wal> <unfinished ...>\n";
        let ended = "11 <... fdatasync resumed>)         = 0\n";
        check(&[READ, WRITE, begun, ANSWER, ended], late);
        check(&[READ, WRITE, begun, ended, ANSWER], "");
    }
}
