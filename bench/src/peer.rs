//! The proxies that are measured: how each is configured, started, and told of a new route while it runs.
//!
//! The configurations are the commented templates under `peers/`; what differs between two runs is filled in.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::load::route_name;
use crate::proc;

/// A proxy, or its absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Peer {
    /// Ours.
    #[value(name = "mc-proxy")]
    #[serde(rename = "mc-proxy")]
    McProxy,
    /// nginx.
    Nginx,
    /// HAProxy.
    Haproxy,
    /// sozu.
    Sozu,
    /// No proxy: the load speaks to the backend. Only for what the network itself costs.
    #[value(skip)]
    Direct,
}

/// Where the programs are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Programs {
    /// MC-Proxy.
    pub(crate) mc_proxy: PathBuf,
    /// Its command line.
    pub(crate) mcproxyctl: PathBuf,
    /// nginx.
    pub(crate) nginx: PathBuf,
    /// HAProxy.
    pub(crate) haproxy: PathBuf,
    /// sozu.
    pub(crate) sozu: PathBuf,
}

/// Where a proxy listens and what stands behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    /// The proxy.
    pub(crate) listen: SocketAddr,
    /// Backends by mode.
    pub(crate) answer: SocketAddr,
    /// See [`crate::backend::Mode`].
    pub(crate) echo: SocketAddr,
    /// See [`crate::backend::Mode`].
    pub(crate) sink: SocketAddr,
    /// See [`crate::backend::Mode`].
    pub(crate) source: SocketAddr,
    /// A web server.
    pub(crate) web: SocketAddr,
}

/// A proxy that runs, pinned to its core.
#[derive(Debug)]
pub(crate) struct Proxy {
    peer: Peer,
    programs: Programs,
    site: Site,
    dir: PathBuf,
    child: Child,
}

impl Peer {
    /// As it is called in tables.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::McProxy => "MC-Proxy",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Sozu => "sozu",
            Self::Direct => "direct",
        }
    }

    /// How often a route is changed in a second in the row about changes: by reload it cannot be often.
    pub(crate) const fn changes_per_second(self) -> u32 {
        match self {
            Self::Nginx => 1,
            _ => 100,
        }
    }

    /// Writes the configuration with `routes` routes to the answering backend.
    pub(crate) fn configure(self, site: &Site, dir: &Path, routes: u32) -> anyhow::Result<()> {
        let names = (0..routes).map(route_name);
        match self {
            Self::McProxy => self.fill(site, dir, routes, &mc_proxy_routes(site, names)),
            Self::Nginx | Self::Haproxy => {
                fs::write(dir.join("routes.map"), self.map(names))?;
                self.fill(site, dir, routes, "")
            }
            Self::Sozu => {
                let lines = names
                    .map(|name| format!("    {{ address = \"{}\", hostname = \"{name}\" }},\n", site.listen));
                self.fill(site, dir, routes, &lines.collect::<String>())
            }
            Self::Direct => Ok(()),
        }
    }

    /// Writes the configuration that terminates TLS, with the certificate that is in `dir`, for the web server.
    pub(crate) fn configure_http(self, site: &Site, dir: &Path) -> anyhow::Result<()> {
        let text = match self {
            Self::McProxy => include_str!("../peers/mc-proxy-http.toml"),
            Self::Nginx => include_str!("../peers/nginx-http.conf"),
            Self::Haproxy => include_str!("../peers/haproxy-http.cfg"),
            Self::Sozu => include_str!("../peers/sozu-http.toml"),
            Self::Direct => "",
        };
        fill(text, site, dir, 0, "", &dir.join(self.config_name()))
    }

    /// Starts it on `core`, configured in `dir`.
    pub(crate) fn start(
        self,
        programs: &Programs,
        site: Site,
        dir: &Path,
        core: u32,
    ) -> anyhow::Result<Proxy> {
        let config = dir.join(self.config_name());
        let mut command = Command::new("taskset");
        command.arg("-c").arg(core.to_string());
        match self {
            Self::McProxy => command.arg(&programs.mc_proxy).arg("--config").arg(config),
            Self::Nginx => command.arg(&programs.nginx).arg("-c").arg(config),
            // Master and worker, as its package runs it.
            Self::Haproxy => command.arg(&programs.haproxy).args(["-W", "-f"]).arg(config),
            Self::Sozu => command.arg(&programs.sozu).arg("-c").arg(config).arg("start"),
            Self::Direct => bail!("there is no proxy to start"),
        };
        // HAProxy's standard output is its access log. The others say little, and leave theirs elsewhere.
        let stdout = if self == Self::Haproxy { "access.log" } else { "stdout.log" };
        fs::remove_file(dir.join("access.log")).ok();
        let open = |name| fs::OpenOptions::new().create(true).append(true).open(dir.join(name));
        command.current_dir(dir).stdin(Stdio::null()).stdout(open(stdout)?).stderr(open("stderr.log")?);
        let child = command.spawn().context("starting taskset (Debian: util-linux)")?;
        Ok(Proxy { peer: self, programs: programs.clone(), site, dir: dir.to_owned(), child })
    }

    fn config_name(self) -> &'static str {
        match self {
            Self::McProxy => "mc-proxy.toml",
            Self::Nginx => "nginx.conf",
            Self::Haproxy => "haproxy.cfg",
            Self::Sozu => "sozu.toml",
            Self::Direct => "",
        }
    }

    fn template(self) -> &'static str {
        match self {
            Self::McProxy => include_str!("../peers/mc-proxy.toml"),
            Self::Nginx => include_str!("../peers/nginx.conf"),
            Self::Haproxy => include_str!("../peers/haproxy.cfg"),
            Self::Sozu => include_str!("../peers/sozu.toml"),
            Self::Direct => "",
        }
    }

    /// Lines of the map from names to backends.
    fn map(self, names: impl Iterator<Item = String>) -> String {
        let end = if self == Self::Nginx { ";" } else { "" };
        let fixed = ["echo", "sink", "source"].map(|group| (format!("{group}.bench.test"), group));
        let answers = names.map(|name| (name, "answer"));
        answers.chain(fixed).fold(String::new(), |mut map, (name, group)| {
            writeln!(map, "{name} {group}{end}").expect("writing to a string");
            map
        })
    }

    fn fill(self, site: &Site, dir: &Path, routes: u32, lines: &str) -> anyhow::Result<()> {
        fill(self.template(), site, dir, routes, lines, &dir.join(self.config_name()))
    }
}

/// Writes a template to `path` with its values.
fn fill(
    template: &str,
    site: &Site,
    dir: &Path,
    routes: u32,
    lines: &str,
    path: &Path,
) -> anyhow::Result<()> {
    let mut text = template.to_owned();
    let values = [
        ("PLACEHOLDERS", "Values"),
        ("DIR", &dir.display().to_string()),
        ("NGINX_MODULES", nginx_modules()),
        ("FILES", &files().to_string()),
        ("CONNECTIONS", &most_connections().to_string()),
        ("BACKLOG", &BACKLOG.to_string()),
        ("HASH_SIZE", &(routes.max(1024) * 2).to_string()),
        ("LISTEN", &site.listen.to_string()),
        ("ANSWER", &site.answer.to_string()),
        ("ECHO", &site.echo.to_string()),
        ("SINK", &site.sink.to_string()),
        ("SOURCE", &site.source.to_string()),
        ("WEB", &site.web.to_string()),
        ("ROUTES", lines),
    ];
    for (name, value) in values {
        text = text.replace(&format!("{{{{{name}}}}}"), value);
    }
    fs::write(path, text).context("writing a configuration")
}

/// Starts nginx on this thread's core as the web server behind every proxy, with files of `dir`.
pub(crate) fn start_web(programs: &Programs, site: &Site, dir: &Path) -> anyhow::Result<Child> {
    let config = dir.join("web.conf");
    fill(include_str!("../peers/web.conf"), site, dir, 0, "", &config)?;
    Command::new(&programs.nginx).arg("-c").arg(config).stdin(Stdio::null()).spawn().context("starting nginx")
}

impl Proxy {
    /// All its processes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        proc::tree(self.child.id())
    }

    /// Fails where the proxy ended by itself, with what it said last.
    pub(crate) fn check_runs(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        let said = fs::read_to_string(self.dir.join("stderr.log")).unwrap_or_default();
        let last: Vec<&str> = said.lines().rev().take(3).collect();
        bail!("{} ended with {status}: {}", self.peer.title(), last.join(" / "))
    }

    /// Ends it in order and waits.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        self.child.wait()?;
        Ok(())
    }

    /// Lines in its access log.
    pub(crate) fn logged(&self) -> u64 {
        let log = fs::read(self.dir.join("access.log")).unwrap_or_default();
        log.iter().filter(|byte| **byte == b'\n').count() as u64
    }

    /// Adds a route to the answering backend, by the way that the proxy has for it.
    pub(crate) fn add_route(&self, name: &str) -> anyhow::Result<()> {
        let (listen, answer) = (self.site.listen.to_string(), self.site.answer.to_string());
        match self.peer {
            Peer::McProxy => run(Command::new(&self.programs.mcproxyctl)
                .arg("--socket")
                .arg(self.dir.join("mc-proxy.sock"))
                .args([
                    "route",
                    "add",
                    "--replace",
                    "--listener",
                    "tls",
                    "--name",
                    name,
                    "--backend",
                    &answer,
                ])),
            Peer::Nginx => {
                let path = self.dir.join("routes.map");
                let mut map = fs::OpenOptions::new().append(true).open(path)?;
                writeln!(map, "{name} answer;")?;
                self.signal(Signal::HUP)
            }
            Peer::Haproxy => {
                let mut admin = UnixStream::connect(self.dir.join("admin.sock"))?;
                admin.set_read_timeout(Some(Duration::from_secs(5)))?;
                writeln!(admin, "add map {} {name} answer", self.dir.join("routes.map").display())?;
                let mut said = String::new();
                admin.read_to_string(&mut said)?;
                ensure!(said.trim().is_empty(), "HAProxy's admin socket says {said:?}");
                Ok(())
            }
            Peer::Sozu => run(Command::new(&self.programs.sozu)
                .arg("-c")
                .arg(self.dir.join(self.peer.config_name()))
                .args(["frontend", "tcp", "add", "--id", "answer", "--address", &listen, "--sni", name])),
            Peer::Direct => Ok(()),
        }
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a process id")?;
        kill_process(pid, signal).with_context(|| format!("signalling {}", self.peer.title()))
    }
}

fn mc_proxy_routes(site: &Site, names: impl Iterator<Item = String>) -> String {
    names
        .map(|name| {
            let backend = format!("backends = [{{ address = \"{}\" }}]", site.answer);
            format!("[[routes]]\nlistener = \"tls\"\nname = \"{name}\"\n{backend}\n\n")
        })
        .collect()
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("running {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} ended with {}: {}", output.status, said.trim());
    Ok(())
}

/// Debian's place, or that of nginx's own packages.
fn nginx_modules() -> &'static str {
    let places = ["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/etc/nginx/modules"];
    places.into_iter().find(|place| Path::new(place).is_dir()).unwrap_or(places[0])
}

/// Descriptors that a proxy counts on: nearly what we may have, and not more than a usual hard limit.
fn files() -> u32 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    u32::try_from(limit.min(20_000)).expect("20,000 at most").saturating_sub(100)
}

/// The most connections at the same time: two descriptors each, and room for HAProxy's pipes.
pub(crate) fn most_connections() -> u32 {
    files().saturating_sub(1_300) / 2
}

/// Connections that wait to be accepted; the kernel allows net.core.somaxconn.
const BACKLOG: u32 = 8_192;

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> Site {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Site {
            listen: at(8443),
            answer: at(9001),
            echo: at(9002),
            sink: at(9003),
            source: at(9004),
            web: at(9005),
        }
    }

    fn check(peer: Peer, files: &[(&str, &str)]) {
        let dir = std::env::temp_dir().join(format!("mc-bench-test-{}-{peer:?}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        peer.configure(&site(), &dir, 3).unwrap();
        for (file, expect) in files {
            let text = fs::read_to_string(dir.join(file)).unwrap();
            assert!(text.contains(expect), "{file} lacks {expect:?}: {text}");
            assert!(!text.contains("{{"), "{file} has a placeholder left: {text}");
        }
        peer.configure_http(&site(), &dir).unwrap();
        let text = fs::read_to_string(dir.join(peer.config_name())).unwrap();
        assert!(text.contains("127.0.0.1:9005") && !text.contains("{{"), "{text}");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn configurations_are_filled_in() {
        check(Peer::McProxy, &[("mc-proxy.toml", "name = \"r0000002.bench.test\"")]);
        check(
            Peer::Nginx,
            &[("nginx.conf", "listen 127.0.0.1:8443"), ("routes.map", "r0000002.bench.test answer;\n")],
        );
        check(
            Peer::Haproxy,
            &[("haproxy.cfg", "bind 127.0.0.1:8443"), ("routes.map", "echo.bench.test echo\n")],
        );
        check(Peer::Sozu, &[("sozu.toml", "hostname = \"r0000002.bench.test\" },\n]")]);
    }
}
