//! `cargo xtask deploy-files`: what each service ships, rendered from one set of templates.
//!
//! `deploy/templates/service*` and `config.toml` are the templates; `deploy/templates/<service>/values.toml` has the values for their
//! `{{placeholders}}`, and `sections.toml` the service's own part of the example configuration. The rendered files are committed, so
//! that operators find them without a build; a test compares them with the templates. A new service is a new folder of values. One that stores
//! nothing has no backup.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::repo::Repo;

/// Each template, and where its rendered file goes below `deploy`.
const TEMPLATES: &[(&str, &str)] = &[
    ("service.service", "{{name}}/{{name}}.service"),
    ("service-backup.service", "{{name}}/{{name}}-backup.service"),
    ("service-backup.timer", "{{name}}/{{name}}-backup.timer"),
    ("service.sysusers.conf", "{{name}}/{{name}}.sysusers.conf"),
    ("service.tmpfiles.conf", "{{name}}/{{name}}.tmpfiles.conf"),
    ("service.Containerfile", "{{name}}/Containerfile"),
    ("service.mcp.toml", "{{name}}/{{name}}.mcp.toml"),
    ("config.toml", "config/{{name}}.toml"),
];

/// Writes the files that differ from their templates.
///
/// # Errors
/// A template or its values are incomplete, or a file cannot be written.
pub(crate) fn run(repo: &Repo) -> Result<bool> {
    for (path, text) in render_all(&repo.root)? {
        if std::fs::read_to_string(&path).is_ok_and(|current| current == text) {
            continue;
        }
        let folder = path.parent().context("a rendered file is in a folder")?;
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&path, text))
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("wrote {}", path.display());
    }
    Ok(true)
}

/// Every rendered file of every service, by path.
fn render_all(root: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let deploy = root.join("deploy");
    let templates = deploy.join("templates");
    let read = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let version = version(&read(&root.join("Cargo.toml"))?)?;
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(&templates).context("cannot read deploy/templates")? {
        let folder = entry?.path();
        if !folder.is_dir() {
            continue;
        }
        let mut values: BTreeMap<String, String> =
            toml::from_str(&read(&folder.join("values.toml"))?).context("values.toml")?;
        let name = values.get("name").context("values.toml has no `name`")?.to_uppercase();
        values.insert("NAME".to_owned(), name.replace('-', "_"));
        values.insert("version".to_owned(), version.clone());
        values.insert("sections".to_owned(), read(&folder.join("sections.toml"))?);
        let stores = values.get("stores").context("values.toml has no `stores`")? == "yes";
        values.extend(of_backups(&values["name"], stores));
        for (template, path) in
            TEMPLATES.iter().filter(|(template, _)| stores || !template.contains("backup"))
        {
            let text = render(&read(&templates.join(template))?, &values)
                .with_context(|| format!("{template} for {}", folder.display()))?;
            files.insert(deploy.join(render(path, &values)?), text);
        }
    }
    Ok(files)
}

/// What the templates say of backups; nothing for a service that stores nothing.
fn of_backups(name: &str, stores: bool) -> BTreeMap<String, String> {
    let texts = [
        ("backup_units", format!("{name}-backup.service {name}-backup.timer ")),
        ("backup_timer", format!(" {name}-backup.timer")),
        ("backups", format!("d /srv/{name}/backups 0700 {name} {name}\n")),
    ];
    texts.map(|(key, text)| (key.to_owned(), if stores { text } else { String::new() })).into()
}

/// The text with each `{{placeholder}}` replaced by its value.
fn render(template: &str, values: &BTreeMap<String, String>) -> Result<String> {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").context("`{{` without `}}`")?;
        let Some(value) = values.get(name) else { bail!("`{{{{{name}}}}}` has no value") };
        text.push_str(before);
        text.push_str(value);
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

/// The workspace's version.
fn version(manifest: &str) -> Result<String> {
    let manifest: toml::Table = toml::from_str(manifest).context("Cargo.toml")?;
    let version = manifest["workspace"]["package"]["version"].as_str();
    Ok(version.context("the workspace has no version")?.to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::repo::on_path;

    fn rendered() -> BTreeMap<PathBuf, String> {
        render_all(&Repo::find().unwrap().root).unwrap()
    }

    #[test]
    fn the_files_are_what_the_templates_make() {
        for (path, text) in rendered() {
            let found = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(found == text, "{}: run `cargo xtask deploy-files`", path.display());
        }
    }

    #[test]
    fn a_placeholder_without_a_value_is_an_error() {
        let values = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        assert_eq!(render("x{{a}}y{{a}}", &values).unwrap(), "x1y1");
        assert!(render("{{b}}", &values).unwrap_err().to_string().contains("`{{b}}` has no value"));
        assert!(render("{{a", &values).is_err());
    }

    #[test]
    fn service_definitions_and_configurations_are_toml_with_explicit_images() {
        for (path, text) in
            rendered().into_iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "toml"))
        {
            let table: toml::Table =
                toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            for component in table.get("components").and_then(toml::Value::as_array).into_iter().flatten() {
                let image = component["image"].as_str().unwrap();
                let (repository, tag) = image.rsplit('/').next().unwrap().split_once(':').unwrap();
                assert!(tag.starts_with('v'), "{image}");
                let containerfile = table["build"]["images"][repository].as_str().unwrap();
                let containerfile = Repo::find().unwrap().root.join(containerfile);
                assert!(containerfile.is_file(), "{}", containerfile.display());
            }
        }
    }

    #[test]
    fn units_consist_of_sections_and_assignments() {
        let is_unit = |path: &Path| path.extension().is_some_and(|end| end == "service" || end == "timer");
        for (path, text) in rendered().into_iter().filter(|(path, _)| is_unit(path)) {
            for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
                let is_section = ["[Unit]", "[Service]", "[Timer]", "[Install]"].contains(&line);
                let is_assignment = line.split_once('=').is_some_and(|(key, _)| {
                    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric())
                });
                assert!(is_section || is_assignment, "{}: {line}", path.display());
            }
        }
    }

    /// What a unit's comment says to install is all that `check` looks at.
    #[test]
    fn the_steps_of_a_unit_install_the_configuration_and_the_certificate() {
        let units =
            rendered().into_iter().filter(|(_, text)| text.contains("\n[Install]\nWantedBy=multi-user"));
        let units: Vec<_> = units.collect();
        assert!(!units.is_empty());
        for (path, text) in units {
            let step =
                |end: &str| text.lines().position(|line| line.starts_with("#   ") && line.contains(end));
            let check = step(" check");
            for file in [".toml /srv/", "/certs/server.pem", "/certs/server.key"] {
                assert!(step(file).is_some() && step(file) < check, "{}: {file}", path.display());
            }
        }
    }

    /// The rendered files whose name ends so, in a folder.
    fn in_folder(suffixes: &[&str], change: impl Fn(String) -> String) -> (PathBuf, Vec<PathBuf>) {
        let folder =
            std::env::temp_dir().join(format!("deploy-files-{}-{}", std::process::id(), suffixes[0]));
        std::fs::create_dir_all(&folder).unwrap();
        let mut paths = Vec::new();
        for (path, text) in rendered() {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if suffixes.iter().any(|suffix| name.ends_with(suffix)) {
                paths.push(folder.join(&name));
                std::fs::write(folder.join(name), change(text)).unwrap();
            }
        }
        (folder, paths)
    }

    /// Runs a program that says nothing where everything is as it should be.
    fn is_silent(command: &mut Command) {
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && errors.is_empty(), "{command:?}: {errors}");
    }

    #[test]
    fn systemd_understands_the_units() {
        if !on_path("systemd-analyze") {
            return;
        }
        // The programs are not installed here.
        let installed = |text: String| {
            let lines = text.lines().map(|line| match line.strip_prefix("ExecStart=") {
                Some(_) => "ExecStart=/bin/true".to_owned(),
                None => line.to_owned(),
            });
            lines.collect::<Vec<_>>().join("\n")
        };
        let (folder, units) = in_folder(&[".service", ".timer"], installed);
        assert!(units.len() >= 3, "{units:?}");
        is_silent(Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&units));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn systemd_makes_the_user_and_the_directories() {
        if !on_path("systemd-sysusers") || !on_path("systemd-tmpfiles") {
            return;
        }
        let (folder, files) = in_folder(&["sysusers.conf", "tmpfiles.conf"], |text| text);
        let of = |end: &'static str| files.iter().filter(move |file| file.to_string_lossy().ends_with(end));
        let root = folder.join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        let at = format!("--root={}", root.display());
        let output = Command::new("systemd-sysusers").arg(&at).args(of("sysusers.conf")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let users = std::fs::read_to_string(root.join("etc/passwd")).unwrap();
        assert!(
            users
                .lines()
                .any(|line| line.starts_with("mcias:") && line.ends_with(":/srv/mcias:/usr/sbin/nologin")),
            "{users}"
        );
        let mut command = Command::new("systemd-tmpfiles");
        let output = command.args(["--create", &at]).args(of("tmpfiles.conf")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(root.join("srv/mcias/certs").is_dir());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
