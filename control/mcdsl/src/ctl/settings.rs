//! Which server a command is for, and which token it uses.
//!
//! Options decide first, then the context (`--context`, or the current one unless a server is given), then the
//! environment, then the defaults.

use std::path::{Path, PathBuf};

use super::args::GlobalArgs;
use super::context::{Context, Contexts};
use super::{Error, Exit, Program};

/// Variable for `--context`.
const CONTEXT: &str = "METACIRCULAR_CONTEXT";

/// The service that people log in at.
pub(super) const IDENTITY: &str = "mcias";

const DEFAULT_CA: &str = "/etc/ssl/certs/ca-certificates.crt";

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) server: String,
    /// MCIAS, if its address is known.
    pub(super) identity_server: Option<String>,
    pub(super) ca: PathBuf,
    pub(super) token_file: PathBuf,
}

impl Settings {
    /// `directory` is that of the context file and the tokens.
    pub(super) fn resolve(
        program: &Program,
        args: &GlobalArgs,
        directory: &Path,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let own_variable = |suffix: &str| variable(&program.variable(suffix));
        let contexts = Contexts::read(&contexts_file(directory))?;
        let has_server = args.server.is_some() || own_variable("SERVER").is_some();
        let named = args.context.clone().or_else(|| variable(CONTEXT));
        let name = named.or_else(|| contexts.current.clone().filter(|_| !has_server));
        let none = Context::default();
        let context = name.as_ref().map_or(Ok(&none), |name| contexts.find(name))?;

        let of_context = match (&name, context.servers.get(program.service)) {
            (Some(name), None) if args.server.is_none() => {
                let detail = format!(
                    "Context `{name}` has no server for {}: add it with `{} context add {name} --server URL`",
                    program.service, program.name
                );
                return Err(Error::new(Exit::NotFound, detail));
            }
            (_, server) => server.cloned(),
        };
        let is_of_context = args.server.is_none() && of_context.is_some();
        let server = args.server.clone().or(of_context).or_else(|| own_variable("SERVER"));
        let server = server.unwrap_or_else(|| program.default_server.to_owned());
        // A token is never sent to another server than the one that it was stored for.
        let name = name.filter(|_| is_of_context);
        let stored =
            name.map_or_else(|| server_token(directory, &server), |name| context_token(directory, &name));
        let file = |option: &Option<PathBuf>, of_context: &Option<PathBuf>, suffix| {
            option.clone().or_else(|| of_context.clone()).or_else(|| own_variable(suffix).map(PathBuf::from))
        };
        let of_context_file = context.token_file.clone().filter(|_| is_of_context);
        Ok(Self {
            identity_server: if program.service == IDENTITY {
                Some(server.clone())
            } else {
                context.servers.get(IDENTITY).cloned().or_else(|| variable("MCIAS_SERVER"))
            },
            ca: file(&args.ca, &context.ca, "CA").unwrap_or_else(|| DEFAULT_CA.into()),
            token_file: file(&args.token_file, &of_context_file, "TOKEN_FILE").unwrap_or(stored),
            server,
        })
    }
}

/// `~/.config/metacircular`, or where `$XDG_CONFIG_HOME` leads.
pub(super) fn directory(xdg_config_home: Option<String>, home: Option<PathBuf>) -> Result<PathBuf, Error> {
    let config = xdg_config_home.filter(|path| !path.is_empty()).map(PathBuf::from);
    let config = config.or_else(|| Some(home.filter(|home| !home.as_os_str().is_empty())?.join(".config")));
    let config =
        config.ok_or_else(|| Error::usage("There is no home directory: set HOME or XDG_CONFIG_HOME"))?;
    Ok(config.join("metacircular"))
}

pub(super) fn contexts_file(directory: &Path) -> PathBuf {
    directory.join("contexts.toml")
}

/// Where the token of a context is. Tokens of contexts and of servers are in directories of their own: a context may be
/// named as a server's file is.
pub(super) fn context_token(directory: &Path, name: &str) -> PathBuf {
    directory.join("tokens/contexts").join(name)
}

/// Where the token of a server without a context is.
fn server_token(directory: &Path, server: &str) -> PathBuf {
    directory.join("tokens/servers").join(file_name(server))
}

/// `https://localhost:9443` as `localhost_9443`. Each address has a name of its own.
fn file_name(server: &str) -> String {
    let address = server.trim_start_matches("https://").trim_end_matches('/');
    address.bytes().fold(String::new(), |mut name, byte| {
        match byte {
            b':' => name.push('_'),
            b'.' | b'-' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => name.push(byte.into()),
            _ => name.push_str(&format!("%{byte:02x}")),
        }
        name
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::args::{Cli, Command};
    use super::*;

    #[derive(Debug, clap::Subcommand)]
    enum NoCommands {}

    const PROGRAM: Program = Program {
        name: "mciasctl",
        service: "mcias",
        version: "1",
        about: "",
        fields: &[],
        examples: "",
        default_server: "https://localhost:9443",
    };

    fn resolve(directory: &Path, line: &str, variables: &[(&str, &str)]) -> Result<Settings, Error> {
        let cli = Cli::<NoCommands>::parse_from(line.split(' ').chain(["logout"]));
        assert!(matches!(cli.command, Command::Logout));
        let find = |name: &str| variables.iter().find(|it| it.0 == name).map(|it| it.1.to_owned());
        Settings::resolve(&PROGRAM, &cli.global, directory, find)
    }

    const FILE: &str = r#"
        current = "home"
        [contexts.home]
        ca = "/home.pem"
        servers.mcias = "https://home:1"
        [contexts.work]
        token_file = "/work.token"
        servers.mcias = "https://work:1"
        servers.mcr = "https://mcr:1"
        [contexts.other]
        servers.mcr = "https://mcr:1"
    "#;

    #[test]
    fn options_then_context_then_environment_then_default() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let check = |line: &str, variables: &[(&str, &str)], server: &str, ca: &str, token: &str| {
            let settings = resolve(path, line, variables).unwrap();
            assert_eq!(settings.server, server, "{line}");
            assert_eq!(settings.identity_server.as_deref(), Some(server), "{line}");
            assert_eq!(settings.ca, Path::new(ca), "{line}");
            assert_eq!(settings.token_file, path.join("tokens").join(token), "{line}");
        };
        let env = [("MCIAS_SERVER", "https://env:1"), ("MCIAS_CA", "/env.pem")];
        check("ctl", &[], "https://localhost:9443", DEFAULT_CA, "servers/localhost_9443");
        check("ctl", &env, "https://env:1", "/env.pem", "servers/env_1");
        check("ctl --server https://x:2/ --ca /x.pem", &env, "https://x:2/", "/x.pem", "servers/x_2");
        std::fs::write(contexts_file(path), FILE).unwrap();
        check("ctl", &[], "https://home:1", "/home.pem", "contexts/home");
        check("ctl", &env, "https://env:1", "/env.pem", "servers/env_1");
        check("ctl --context home", &env, "https://home:1", "/home.pem", "contexts/home");
        check(
            "ctl --ca /x.pem --token-file /t",
            &[("METACIRCULAR_CONTEXT", "work")],
            "https://work:1",
            "/x.pem",
            "/t",
        );
        check("ctl --context work", &env, "https://work:1", "/env.pem", "/work.token");
        // The token of a context stays with its server.
        check(
            "ctl --context work --server https://evil:1",
            &[],
            "https://evil:1",
            DEFAULT_CA,
            "servers/evil_1",
        );
        check("ctl --server https://evil:1", &[], "https://evil:1", DEFAULT_CA, "servers/evil_1");
    }

    #[test]
    fn a_context_named_as_a_server_has_a_token_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let file = "[contexts.localhost_9443]\nservers.mcias = \"https://home:1\"\n";
        std::fs::write(contexts_file(folder.path()), file).unwrap();
        let token = |line| resolve(folder.path(), line, &[]).unwrap().token_file;
        let (of_context, of_server) = (token("ctl --context localhost_9443"), token("ctl"));
        assert_eq!(of_context.file_name(), of_server.file_name());
        assert_ne!(of_context, of_server);
        let names =
            ["https://a:1", "https://a_1", "https://a%3a1", "https://[::1]:1", "https://..:1"].map(file_name);
        assert_eq!(names, ["a_1", "a%5f1", "a%253a1", "%5b__1%5d_1", ".._1"]);
    }

    #[test]
    fn a_missing_context_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(contexts_file(folder.path()), FILE).unwrap();
        let check = |line: &str, expect: &str| {
            let error = resolve(folder.path(), line, &[]).unwrap_err();
            assert_eq!(error.exit(), Exit::NotFound);
            assert!(error.to_string().contains(expect), "{error}");
        };
        check("ctl --context nowhere", "no context `nowhere`");
        check("ctl --context other", "Context `other` has no server for mcias");
    }

    #[test]
    fn the_directory_follows_the_environment() {
        let check = |xdg: Option<&str>, home: Option<&str>, expect: Option<&str>| {
            let found = directory(xdg.map(str::to_owned), home.map(PathBuf::from)).ok();
            assert_eq!(found, expect.map(PathBuf::from));
        };
        check(None, Some("/h"), Some("/h/.config/metacircular"));
        check(Some("/c"), Some("/h"), Some("/c/metacircular"));
        check(Some(""), Some("/h"), Some("/h/.config/metacircular"));
        check(None, Some(""), None);
    }
}
