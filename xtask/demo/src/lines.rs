//! The lines that are printed, and what each promises.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::identity::{ADMIN, Identity, NAME};
use crate::tester::{self, Tester};

/// Where everything is.
pub(crate) struct Site {
    /// Full path of the folder of the programs.
    pub(crate) binaries: PathBuf,
    /// The name that is passed through.
    pub(crate) name: &'static str,
    /// The name for which MC-Proxy terminates TLS.
    pub(crate) page_name: &'static str,
    /// Where MC-Proxy listens, on 127.0.0.1 and ::1.
    pub(crate) port: u16,
    /// Where it listens for gRPC of MCIAS, on the same addresses.
    pub(crate) grpc_port: u16,
    pub(crate) metrics: SocketAddr,
    pub(crate) identity: Identity,
    pub(crate) tester: Tester,
    /// Where the route leads at first.
    pub(crate) first: SocketAddr,
    /// Where it can be led to.
    pub(crate) second: SocketAddr,
    /// The backend of the page, which speaks plain HTTP.
    pub(crate) page: SocketAddr,
    /// Everything that is written.
    pub(crate) folder: PathBuf,
}

/// A line to paste into a shell.
pub(crate) struct Line {
    /// What it shows.
    pub(crate) about: &'static str,
    pub(crate) command: String,
    pub(crate) promise: Promise,
}

/// What a line does.
pub(crate) enum Promise {
    /// Succeeds, and prints all of this.
    Prints(Vec<String>),
    /// Fails, because it is refused, and prints all of this.
    IsRefused(Vec<String>),
    /// Goes on until Ctrl-C, and prints this meanwhile.
    GoesOn(Vec<String>),
}

impl Site {
    /// MC-Proxy's admin socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("mc-proxy.sock")
    }

    /// Every line, in an order in which each does what it promises.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let name = self.name.to_owned();
        let prints = |texts: &[&str]| Promise::Prints(texts.iter().map(|&text| text.to_owned()).collect());
        let (first, second) = (self.first.to_string(), self.second.to_string());
        let line = |about, command, promise| Line { about, command, promise };
        vec![
            line(
                "A request through it",
                self.curl(&name),
                prints(&["\"backend\": \"first\"", &name, "127.0.0.1:"]),
            ),
            line(
                "A name that it has no route for: refused",
                self.curl("nobody.localhost"),
                Promise::IsRefused(Vec::new()),
            ),
            line("What it knows", self.ctl("status"), prints(&["routes"])),
            line("", self.ctl("route list"), prints(&[&name, &first])),
            line(
                "Lead the route elsewhere while it runs",
                self.ctl(&self.route_to(self.second)),
                prints(&[&name]),
            ),
            line("The same request again", self.curl(&name), prints(&["\"backend\": \"second\""])),
            line("", self.ctl("route list"), prints(&[&name, &second])),
            line("And back", self.ctl(&self.route_to(self.first)), prints(&[&name])),
            line(
                "A page for which MC-Proxy terminates TLS, over HTTP/2",
                self.curl_with("--http2 --include", self.page_name),
                prints(&["HTTP/2 200", "was told", self.page_name]),
            ),
            line(
                "The same over HTTP/1.1",
                self.curl_with("--http1.1 --include", self.page_name),
                prints(&["HTTP/1.1 200", "was told", "127.0.0.1"]),
            ),
            line("Who is connected", self.ctl("connection list"), prints(&[])),
            line("A live view, left with q", self.ctl("top"), Promise::GoesOn(vec![name.clone()])),
            line(
                "Each connection so far",
                format!("cat {}", self.quoted("access.log")),
                prints(&["completed", "no_route"]),
            ),
            line("Metrics", format!("curl --silent http://{}/metrics", self.metrics), prints(&["# TYPE"])),
            line(
                "MCIAS, through MC-Proxy: what its tokens are checked with",
                self.curl(NAME) + ".well-known/jwks.json",
                prints(&["Ed25519"]),
            ),
            line("How its API is asked", self.curl(NAME) + "openapi.json", prints(&["/v1/introspect"])),
            line(
                "Logging in from a terminal, once there is a password",
                self.mciasctl(),
                asks_for_password(),
            ),
            line(
                "Its metrics",
                format!("curl --silent http://{}/metrics", self.identity.metrics),
                prints(&["mcias_logins_total"]),
            ),
            line(
                "MCAT, which tests MCIAS's login policy: how its API is asked",
                self.curl(tester::NAME) + "openapi.json",
                prints(&["/v1/explain"]),
            ),
            line("Whether it reaches MCIAS", self.curl_at(self.tester.metrics, "readyz"), prints(&["ready"])),
            line(
                "Asking it from a terminal: first a login",
                self.mcat(&format!("login {ADMIN}")),
                asks_for_password(),
            ),
            line(
                "Then what is decided, and why",
                self.mcat("explain mcat"),
                Promise::IsRefused(vec!["Log in".to_owned()]),
            ),
        ]
    }

    /// What a person reads.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "MC-Proxy listens on 127.0.0.1:{0} and [::1]:{0}. It passes {1} through to a TLS backend, and \
             terminates TLS for {2}.\nLines for another terminal:\n",
            self.port, self.name, self.page_name
        );
        for line in self.lines() {
            if !line.about.is_empty() {
                text += &format!("\n# {}\n", line.about);
            }
            text += &line.command;
            text.push('\n');
        }
        text += &format!(
            "\nMCIAS has one person's account, {ADMIN}, an admin without a password. Set one in a browser, by this link, which \
             is good once:\n\n  {}\n\nThen log in to MCAT, https://{}:{}/, with the same password, or with a passkey that was added at MCIAS: \
             it shows what the login policy decides, and what a draft would change.\n\nThe browser does not know the demo's authority: import {}, or go on in spite of \
             that.\n\nCtrl-C stops everything.",
            self.identity.link,
            tester::NAME,
            self.port,
            self.folder.join("ca.pem").display()
        );
        text
    }

    fn curl(&self, name: &str) -> String {
        self.curl_with("--show-error", name)
    }

    fn curl_with(&self, options: &str, name: &str) -> String {
        let Self { port, .. } = self;
        let ca = self.quoted("ca.pem");
        format!(
            "curl --silent {options} --cacert {ca} --resolve {name}:{port}:127.0.0.1 https://{name}:{port}/"
        )
    }

    fn ctl(&self, words: &str) -> String {
        format!("{} --socket {} {words}", self.program("mcproxyctl"), self.quoted("mc-proxy.sock"))
    }

    fn mciasctl(&self) -> String {
        let (port, ca, token) = (self.grpc_port, self.quoted("ca.pem"), self.quoted("token"));
        let program = self.program("mciasctl");
        format!("{program} --server https://{NAME}:{port} --ca {ca} --token-file {token} login {ADMIN}")
    }

    fn curl_at(&self, address: SocketAddr, path: &str) -> String {
        format!("curl --silent http://{address}/{path}")
    }

    fn mcat(&self, words: &str) -> String {
        let (port, ca, token) = (self.grpc_port, self.quoted("ca.pem"), self.quoted("mcat-token"));
        let program = self.program("mcat");
        format!(
            "MCIAS_SERVER=https://{NAME}:{port} {program} {words} --server https://{}:{port} --ca {ca} --token-file {token}",
            tester::NAME
        )
    }

    fn program(&self, name: &str) -> String {
        quote(&self.binaries.join(name).to_string_lossy())
    }

    fn route_to(&self, backend: SocketAddr) -> String {
        format!("route update --listener web --name {} --backend {backend},proxy_protocol=v2", self.name)
    }

    fn quoted(&self, file: &str) -> String {
        quote(&self.folder.join(file).to_string_lossy())
    }
}

fn asks_for_password() -> Promise {
    Promise::GoesOn(vec!["assword".to_owned()])
}

/// A word as a shell takes it.
fn quote(word: &str) -> String {
    let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-:".contains(c));
    if plain { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(folder: &str) -> Site {
        Site {
            binaries: "/build".into(),
            grpc_port: 9443,
            identity: Identity {
                link: "https://mcias.localhost:8443/welcome#secret".to_owned(),
                rest: SocketAddr::from(([127, 0, 0, 1], 1004)),
                grpc: SocketAddr::from(([127, 0, 0, 1], 1005)),
                metrics: SocketAddr::from(([127, 0, 0, 1], 9092)),
            },
            tester: Tester {
                rest: SocketAddr::from(([127, 0, 0, 1], 1006)),
                grpc: SocketAddr::from(([127, 0, 0, 1], 1007)),
                metrics: SocketAddr::from(([127, 0, 0, 1], 9093)),
            },
            name: "demo.localhost",
            page_name: "page.localhost",
            port: 8443,
            metrics: SocketAddr::from(([127, 0, 0, 1], 9091)),
            first: SocketAddr::from(([127, 0, 0, 1], 1001)),
            second: SocketAddr::from(([127, 0, 0, 1], 1002)),
            page: SocketAddr::from(([127, 0, 0, 1], 1003)),
            folder: folder.into(),
        }
    }

    #[test]
    fn every_line_is_checked() {
        let site = site("/build/up");
        let text = site.text();
        // What is printed is what is checked: no line of its own beside the list.
        let printed = text
            .lines()
            .filter(|line| ["curl", "/", "cat", "MCIAS_"].iter().any(|begin| line.starts_with(begin)));
        let checked: Vec<_> = site.lines().into_iter().map(|line| line.command).collect();
        assert_eq!(printed.collect::<Vec<_>>(), checked);
    }

    #[test]
    fn words_survive_the_shell() {
        let check = |word, expect| assert_eq!(quote(word), expect);
        check("/a/b-c_1.pem", "/a/b-c_1.pem");
        check("/my files/x", "'/my files/x'");
        check("it's", "'it'\\''s'");
        assert!(site("/my files").lines()[0].command.contains("--cacert '/my files/ca.pem'"));
    }
}
