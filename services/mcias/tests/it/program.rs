//! MCIAS as a program: what `check` finds, readiness, reload, systemd's notification, health and reflection, halves,
//! backups.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mc_testkit::ca::Certificate;
use mc_testkit::mcias::{Mcias, NAME};
use mc_testkit::process::Process;
use mc_testkit::service::{Service, write_key};
use mc_testkit::{clock, python_script, requires};
use nix::sys::signal::Signal;

/// Replaces the certificate of a server.
fn install(mcias: &Mcias, certificate: &Certificate) {
    let certs = mcias.folder().join("certs");
    write_key(&certs.join("server.key"), &certificate.key_pem);
    std::fs::write(certs.join("server.pem"), &certificate.pem).unwrap();
}

/// What `check` prints to standard error, and its exit code.
fn check(mcias: &Mcias, environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = mcias.command(&["check"]).envs(environment.iter().copied()).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn check_finds_each_problem_of_a_certificate() {
    let mcias = Mcias::start();
    assert_eq!(check(&mcias, &[]), (Some(0), String::new()));
    let found = |expect: &str| {
        let (code, errors) = check(&mcias, &[]);
        assert!(code == Some(1) && errors.contains(expect), "{code:?}: {errors}");
    };
    install(&mcias, &mcias.ca.issue_expired(&[NAME]));
    found("server.pem: the certificate expired at 2020-12-31T00:00:00Z");
    install(&mcias, &mcias.ca.issue(&["other.test"]));
    found("the certificate is not for `mcias.test`, the host of the public URL");
    install(&mcias, &mcias.ca.issue(&["*.other.test", NAME]));
    assert_eq!(check(&mcias, &[]), (Some(0), String::new()));
    let key = mcias.folder().join("certs/server.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    found("server.key: every user of this machine can access the private key (mode 0644)");
    install(&mcias, &mcias.ca.issue(&[NAME]));
    write_key(&key, &mcias.ca.issue(&[NAME]).key_pem);
    found("cannot be used together");
    // All problems at once.
    install(&mcias, &mcias.ca.issue_expired(&["other.test"]));
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o604)).unwrap();
    ["expired at", "is not for `mcias.test`", "(mode 0604)"].into_iter().for_each(found);
}

#[test]
fn check_refuses_numbers_out_of_range_and_misspelt_variables() {
    let mcias = Mcias::start();
    let refused = |variable: &str, value: &str, expect: &str| {
        let (code, errors) = check(&mcias, &[(variable, value)]);
        assert!(code == Some(2) && errors.contains(expect), "{code:?}: {errors}");
    };
    refused("MCIAS_SERVER_MAX_CONNECTIONS", "0", "MCIAS_SERVER_MAX_CONNECTIONS: 0 is out of range");
    refused("MCIAS_THROTTLE_ENTRIES", "1", "1 is out of range; expected 1000 to 10000000");
    refused("MCIAS_SERVER_LISTEN_ADR", "x", "did you mean `MCIAS_SERVER_LISTEN_ADDR`?");
    // What mciasctl reads is not the server's.
    assert_eq!(check(&mcias, &[("MCIAS_SERVER", "https://mcias.test:9443")]).0, Some(0));
}

#[test]
fn check_reports_everything_that_is_wrong_at_once() {
    let mcias = Mcias::start();
    let file = mcias.folder().join("mcias.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}\n[log]\nlevel = \"loud\"\n\"co\\u001b[2Jlour\" = 1\n")).unwrap();
    install(&mcias, &mcias.ca.issue_expired(&["other.test"]));
    let variables = [("MCIAS_SERVER_MAX_CONNECTIONS", "0"), ("MCIAS_TOKENS_SESSION_S", "long")];
    let (code, errors) = check(&mcias, &variables);
    assert_eq!(code, Some(2), "{errors}");
    for expect in [
        "log.level: unknown value `loud`: expected one of error, warn",
        "unknown field `co\\u{1b}[2Jlour`",
        "MCIAS_SERVER_MAX_CONNECTIONS: 0 is out of range",
        "MCIAS_TOKENS_SESSION_S: `long` is invalid: expected a whole number",
        "the certificate expired at 2020-12-31T00:00:00Z",
        "is not for `mcias.test`",
    ] {
        assert!(errors.contains(expect), "{expect}: {errors}");
    }
    assert!(
        errors.lines().count() == 6 && errors.lines().all(|line| line.starts_with("mcias: ")),
        "{errors}"
    );
    assert!(!errors.contains('\x1b'), "{errors:?}");
}

#[test]
fn check_reads_a_table_from_a_variable_and_says_what_is_expected() {
    let mcias = Mcias::start();
    let with = |value| check(&mcias, &[("MCIAS_SERVER_PROXY_PROTOCOL", value)]);
    assert_eq!(with("{ from = [\"10.0.0.0/8\"] }"), (Some(0), String::new()));
    let (code, errors) = with("on");
    let expect = "MCIAS_SERVER_PROXY_PROTOCOL: `on` is invalid: expected \"off\", { from = [\"10.0.0.0/8\"] } or { optional_from = [\"127.0.0.0/8\"] }";
    assert!(code == Some(2) && errors.contains(expect), "{errors}");
}

#[test]
fn check_waits_for_no_pipe_and_changes_nothing() {
    requires!("mkfifo");
    let mut mcias = Mcias::start();
    mcias.stop();
    let files = || {
        let entries = std::fs::read_dir(mcias.folder()).unwrap().map(|entry| entry.unwrap().file_name());
        entries.collect::<std::collections::BTreeSet<_>>()
    };
    let before = files();
    assert_eq!(check(&mcias, &[]), (Some(0), String::new()));
    assert_eq!(files(), before);
    let pipe = mcias.folder().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let pipe = pipe.to_str().unwrap();
    let (code, errors) = check(&mcias, &[("MCIAS_SERVER_CERTIFICATE", pipe)]);
    assert!(code == Some(1) && errors.contains("it is not a regular file"), "{errors}");
    let output =
        Command::new(env!("CARGO_BIN_EXE_mcias")).args(["check", "--config", pipe]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn a_server_that_nobody_can_administer_says_so() {
    let mut service = Service::create("mcias", Path::new(env!("CARGO_BIN_EXE_mcias")), "");
    let expect = "nobody can administer this server";
    let check = |service: &Service| {
        let output = service.command(&["check"]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    service.restart(&[("MCIAS_SITE_PUBLIC_URL", "https://mcias.test:8443")]);
    assert!(service.log().contains(expect), "{}", service.log());
    let public = "[site]\npublic_url = \"https://mcias.test:8443\"\n";
    let file = service.folder().join("mcias.toml");
    std::fs::write(&file, std::fs::read_to_string(&file).unwrap() + public).unwrap();
    // While it runs, and when it does not.
    assert!(check(&service).contains(expect));
    service.stop();
    assert!(check(&service).contains(expect));
    // A link is not a password yet.
    let init = || service.command(&["init", "ada"]).output().unwrap();
    let first = init();
    assert!(first.status.success() && first.stderr.is_empty(), "{first:?}");
    assert!(check(&service).contains(expect));
    // Again, it takes away what the account had, and says so beside the link.
    let again = init();
    assert!(again.stdout.starts_with(b"https://mcias.test"), "{again:?}");
    assert!(String::from_utf8_lossy(&again.stderr).contains("the account existed"), "{again:?}");
}

#[test]
fn a_server_logs_what_check_finds() {
    let mut mcias = Mcias::start();
    let expects = ["is not for `mcias.test`", "(mode 0644)"];
    assert!(!expects.iter().any(|text| mcias.log().contains(text)), "{}", mcias.log());
    install(&mcias, &mcias.ca.issue(&["other.test"]));
    let key = mcias.folder().join("certs/server.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    mcias.restart(&[]);
    for expect in expects {
        assert!(mcias.log().contains(expect), "{expect}: {}", mcias.log());
    }
}

/// The certificate that a server shows, DER.
fn shown(mcias: &Mcias) -> Vec<u8> {
    let line = mcias.connect();
    line.tls.conn.peer_certificates().unwrap()[0].to_vec()
}

fn metric(mcias: &Mcias, name: &str) -> String {
    let page = mcias.ops_page("/metrics");
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not in {page}")).to_owned()
}

#[test]
fn an_expired_certificate_never_replaces_a_valid_one() {
    let mcias = Mcias::start();
    let (first, expires) = (shown(&mcias), metric(&mcias, "tls_certificate_not_after_seconds"));
    install(&mcias, &mcias.ca.issue_expired(&[NAME]));
    mcias.process().signal(Signal::SIGHUP);
    clock::wait_until("the refusal to be counted", || {
        metric(&mcias, "tls_certificate_reload_failures_total") != "0"
    });
    assert!(mcias.log().contains("the certificate expired at 2020-12-31T00:00:00Z"), "{}", mcias.log());
    assert_eq!(shown(&mcias), first);
    assert_eq!(metric(&mcias, "tls_certificate_not_after_seconds"), expires);
    let new = mcias.ca.issue(&[NAME]);
    install(&mcias, &new);
    mcias.process().signal(Signal::SIGHUP);
    clock::wait_until("the new certificate to be used", || shown(&mcias) == new.der());
}

#[test]
fn systemd_is_notified_of_readiness_reloads_and_the_end() {
    let mut mcias = Mcias::start();
    mcias.stop();
    let path = mcias.folder().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The next message that contains `text`; states of a message are lines.
    let next = |text: &str| loop {
        let mut bytes = [0; 4096];
        let length = socket.recv(&mut bytes).unwrap_or_else(|error| panic!("{text}: {error}"));
        let message = String::from_utf8_lossy(&bytes[..length]).into_owned();
        if message.contains(text) {
            return message;
        }
    };
    let path = path.to_str().unwrap();
    mcias.restart(&[("NOTIFY_SOCKET", path), ("WATCHDOG_USEC", "10000000")]);
    let ready = next("READY=1");
    assert!(ready.contains(&format!("STATUS=serving HTTPS at {}", mcias.rest)), "{ready}");
    next("WATCHDOG=1");
    mcias.process().signal(Signal::SIGHUP);
    let reloading = next("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    next("READY=1");
    mcias.stop();
    next("STOPPING=1");
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    let mut mcias = Mcias::start_with("[log]\naccess = true", &[]);
    mcias.stop();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut server = mcias.command(&["serve"]).stderr(full).spawn().unwrap();
    clock::wait_until("the server to listen", || std::net::TcpStream::connect(mcias.rest).is_ok());
    for _ in 0..3 {
        assert_eq!(mcias.ask("GET", "/healthz", "", &serde_json::Value::Null).status, 200);
    }
    assert_eq!(server.try_wait().unwrap(), None, "it runs on");
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn reflection_v1alpha_and_health_watch_answer_and_the_end_is_seen() {
    requires!("python3");
    let mcias = Mcias::start();
    let ca = mcias.ca_file().display().to_string();
    let pid = mcias.process().pid().to_string();
    let seen = python_script("health.py", &[&mcias.grpc.to_string(), &ca, NAME, &pid], &[]);
    let services = seen["services"].as_array().unwrap();
    for name in ["metacircular.mcias.v1.Identity", "grpc.health.v1.Health"] {
        assert!(services.iter().any(|service| service == name), "{name}: {seen}");
    }
    // SERVING, then NOT_SERVING when SIGTERM comes; and the stream ends before the drain does.
    assert_eq!(seen["watched"], serde_json::json!([1, 2]), "{seen}");
}

/// Starts one half of a server whose other half is not there.
fn start_half(mcias: &Mcias, half: &str) -> Process {
    let command = mcias.command(&["serve", "--only", half]);
    let mut process = Process::start(&command, mcias.folder(), half, None, false);
    clock::wait_for("the half to serve", Duration::from_secs(20), || {
        assert!(process.ended().is_none(), "{}", process.errors());
        std::net::TcpStream::connect(mcias.ops).ok()
    });
    process
}

#[test]
fn each_half_serves_alone() {
    let mut mcias = Mcias::start();
    mcias.stop();
    let status = |path: &str| mcias.ask("GET", path, "", &serde_json::Value::Null).status;
    let api = start_half(&mcias, "api");
    assert_eq!([status("/login"), status("/v1/me"), status("/openapi.json")], [404, 401, 200]);
    assert!(std::net::TcpStream::connect(mcias.grpc).is_ok());
    // A browser's error has no link to a page that is not there.
    let lost = mcias.raw_with("GET", "/", "accept: text/html\r\n", "", b"");
    assert!(
        lost.status == 404 && lost.head.contains("application/problem+json"),
        "{} {}",
        lost.head,
        lost.text
    );
    drop(api);
    let _web = start_half(&mcias, "web");
    assert_eq!([status("/login"), status("/v1/me"), status("/openapi.json")], [200, 404, 404]);
    assert!(std::net::TcpStream::connect(mcias.grpc).is_err());
}

/// A server whose root is a file system of its own, which a test can fill or make read-only.
struct OnSmallDisk {
    mcias: Mcias,
    _wrapper: tempfile::TempDir,
}

impl OnSmallDisk {
    /// `mount`: lines of shell that mount it at `$1/small`.
    fn start(mount: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_mcias"));
        let lines = format!(
            "root=$(dirname \"$3\")\nmkdir -p \"$root/small\"\nexec unshare --mount sh -c '\
             {mount} && cp -a \"$1\"/mcias.db* \"$1/certs\" \"$1/small\" && \
             exec {} serve --config \"$1/mcias.toml\" --root \"$1/small\"' sh \"$root\"",
            program.display()
        );
        let wrapper = crate::faults::server_under(folder.path(), program, &lines);
        let mcias = Mcias::start_program(&wrapper, "", &[]);
        Self { mcias, _wrapper: folder }
    }

    /// The file system, seen from here.
    fn small(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.mcias.process().pid()))
            .join(self.mcias.folder().join("small").strip_prefix("/").unwrap())
    }

    fn wait_for_readiness(&self, expect: &str) {
        clock::wait_for(expect, Duration::from_secs(30), || {
            self.mcias.ops_page("/readyz").contains(expect).then_some(())
        });
    }
}

#[test]
fn readiness_says_that_the_disk_is_full() {
    requires!(root, "unshare", "mount");
    let server = OnSmallDisk::start("mount -t tmpfs -o size=2m none \"$1/small\"");
    server.wait_for_readiness("200 OK");
    let filler = server.small().join("filler");
    let filled = std::fs::write(&filler, vec![1; 4 << 20]);
    assert_eq!(filled.unwrap_err().kind(), io::ErrorKind::StorageFull);
    server.wait_for_readiness("503 Service Unavailable");
    let page = server.mcias.ops_page("/readyz");
    assert!(page.contains("no space left"), "{page}");
    assert!(server.mcias.ops_page("/healthz").contains("200 OK"));
    std::fs::remove_file(&filler).unwrap();
    server.wait_for_readiness("200 OK");
}

#[test]
fn readiness_says_that_the_disk_is_read_only() {
    requires!(root, "unshare", "mount", "mkfs.ext4", "nsenter", "findmnt");
    let server = OnSmallDisk::start(
        "truncate -s 16M \"$1/disk\" && mkfs.ext4 -q \"$1/disk\" && \
         mount -o loop,errors=remount-ro \"$1/disk\" \"$1/small\"",
    );
    server.wait_for_readiness("200 OK");
    // As after an error of the disk: the kernel makes the file system read-only below a server that has files open.
    let pid = server.mcias.process().pid().to_string();
    let mut command = Command::new("nsenter");
    command.args(["--target", &pid, "--mount", "--", "findmnt", "-no", "SOURCE"]);
    let output = command.arg(server.mcias.folder().join("small")).output().unwrap();
    let device = String::from_utf8(output.stdout).unwrap();
    let device = device.trim().rsplit('/').next().unwrap();
    std::fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "1").unwrap();
    server.wait_for_readiness("503 Service Unavailable");
}

#[test]
fn backups_are_named_by_time_and_the_oldest_are_removed() {
    let mcias = Mcias::start();
    let old = mcias.folder().join("backups/mcias-20200101T000000Z.tar.zst");
    std::fs::create_dir(old.parent().unwrap()).unwrap();
    std::fs::write(&old, "").unwrap();
    let printed = mcias.run(&["backup", "--keep", "1"]);
    assert!(printed.contains("1 databases") && printed.contains(&format!("removed {}", old.display())));
    let left: Vec<_> =
        std::fs::read_dir(old.parent().unwrap()).unwrap().map(|entry| entry.unwrap()).collect();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn backups_of_the_same_second_are_all_kept() {
    let mcias = Mcias::start();
    for _ in 0..3 {
        mcias.run(&["backup"]);
    }
    assert_eq!(std::fs::read_dir(mcias.folder().join("backups")).unwrap().count(), 3);
}

#[test]
fn the_help_names_the_service_and_its_commands() {
    let output = Command::new(env!("CARGO_BIN_EXE_mcias")).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for expect in ["/srv/mcias/mcias.toml", "serve", "Creates the first admin", "SIGHUP"] {
        assert!(help.contains(expect), "{expect}: {help}");
    }
    // The earlier name of `serve` works and is not shown.
    assert!(!help.contains("\n  server"), "{help}");
}

#[test]
fn what_init_creates_as_root_belongs_to_the_owner_of_the_directory() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("LEFT OUT: what_init_creates_as_root_belongs_to_the_owner_of_the_directory: it needs root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("mcias");
    std::fs::create_dir(&root).unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(&root, Some(1234), Some(1234)).unwrap();
    let config = root.join("mcias.toml");
    std::fs::write(&config, "").unwrap();
    let init =
        Command::new(env!("CARGO_BIN_EXE_mcias")).args(["init", "ada", "--config"]).arg(&config).output();
    let init = init.unwrap();
    assert!(init.status.success() && init.stdout.starts_with(b"https://"), "{init:?}");
    for entry in std::fs::read_dir(&root).unwrap().map(Result::unwrap).filter(|entry| entry.path() != config)
    {
        assert_eq!(
            std::os::unix::fs::MetadataExt::uid(&entry.metadata().unwrap()),
            1234,
            "{:?}",
            entry.path()
        );
    }
}
