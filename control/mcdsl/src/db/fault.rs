//! A planted fault for the tests that must notice it. Only builds with debug assertions have it: a release has none.
//!
//! This file uses nothing of the crate, because a test compiles it alone, as a release is compiled.

/// SQLite's setting `synchronous`: when a change counts as written.
pub(crate) fn synchronous() -> &'static str {
    // Acknowledges a change before the disk has it.
    #[cfg(debug_assertions)]
    if std::env::var_os("MC_FAULT").is_some_and(|fault| fault == "early-ack") {
        return "OFF";
    }
    "FULL"
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    /// Compiles this file into a program that prints the setting; the program's bytes, and what it prints with the fault asked for.
    fn compiled(folder: &Path, flags: &[&str]) -> (Vec<u8>, String) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/db/fault.rs");
        let (main, program) = (folder.join("main.rs"), folder.join("program"));
        let text =
            format!("#[path = {file:?}] mod fault; fn main() {{ print!(\"{{}}\", fault::synchronous()) }}");
        std::fs::write(&main, text).unwrap();
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let done = Command::new(rustc)
            .args(["--edition", "2024"])
            .args(flags)
            .arg("-o")
            .arg(&program)
            .arg(main)
            .status()
            .unwrap();
        assert!(done.success());
        let output = Command::new(&program).env("MC_FAULT", "early-ack").output().unwrap();
        (std::fs::read(program).unwrap(), String::from_utf8(output.stdout).unwrap())
    }

    #[test]
    fn release_builds_do_not_contain_the_fault() {
        let folder = tempfile::tempdir().unwrap();
        let has_name = |bytes: &[u8]| bytes.windows(8).any(|part| part == b"MC_FAULT");
        let (bytes, printed) = compiled(folder.path(), &["-C", "debug-assertions"]);
        assert_eq!((has_name(&bytes), printed.as_str()), (true, "OFF"));
        let (bytes, printed) = compiled(folder.path(), &["-O"]);
        assert_eq!((has_name(&bytes), printed.as_str()), (false, "FULL"));
        // And no profile turns the assertions on.
        assert!(!include_str!("../../../../Cargo.toml").contains("debug-assertions"));
    }
}
