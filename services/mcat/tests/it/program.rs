//! The program: a service that stores nothing, and one binary with two command lines.

use std::process::Command;

use crate::site::Site;

/// What a command prints, and its exit code.
fn run(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_mcat")).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[test]
fn both_command_lines_know_of_each_other() {
    let (code, text) = run(&["--help"]);
    assert!(code == 0 && text.contains("explain") && text.contains("mcat serve"), "{text}");
    let (code, text) = run(&["-c", "none.toml", "--help"]);
    assert!(code == 0 && text.contains("serve") && text.contains("`mcat --help`"), "{text}");
    assert!(text.contains("It stores nothing"), "{text}");
    let (code, text) = run(&["openapi"]);
    assert!(code == 0 && text.contains("\"/v1/explain\""), "{text}");
}

#[test]
fn what_it_does_not_store_it_does_not_back_up() {
    for word in ["init", "snapshot", "backup", "restore"] {
        let (code, text) = run(&["-c", "none.toml", word]);
        assert!(code == 2 && text.contains("unrecognized subcommand"), "{word}: {text}");
        let (_, help) = run(&["-c", "none.toml", "--help"]);
        assert!(!help.contains(&format!("  {word} ")), "{word}: {help}");
    }
    let mut site = Site::start();
    let bob = site.login("bob");
    let folder = site.mcat.folder().to_owned();
    let files = || {
        let all = std::fs::read_dir(&folder).unwrap();
        let mut names: Vec<_> = all.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let before = files();
    assert_eq!(site.explain(&bob, &serde_json::json!({ "service": "mcr" })).status, 200);
    site.mcat.restart(&[]);
    assert_eq!(site.explain(&bob, &serde_json::json!({ "service": "mcr" })).status, 200);
    assert_eq!(files(), before);
    site.mcat.stop();
}

#[test]
fn check_says_what_is_missing() {
    let site = Site::start();
    let check = || {
        let output = site.mcat.command(&["check"]).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    // The test's certificate is for another name than the pages': that is all that is wrong.
    let (code, text) = check();
    assert!(code == 1 && text.lines().count() == 1 && text.contains("mcat.example.test"), "{text}");
    let token = site.mcat.folder().join("mcias.token");
    std::fs::write(&token, "").unwrap();
    assert!(check().1.contains("does not hold a token"), "{}", check().1);
    std::fs::remove_file(&token).unwrap();
    let (code, text) = check();
    assert!(
        code == 1 && text.contains("mcias.token_file") && text.contains("mciasctl token issue"),
        "{text}"
    );
    std::fs::write(site.mcias.ca_file(), "none").unwrap();
    assert!(check().1.contains("mcias.ca"), "{}", check().1);
}
