//! A machine of QEMU's with Debian's kernel, for what the kernel of whoever runs the tests may not have.
//!
//! Its whole system lies in memory: programs of ours with the libraries that they need, a shell, modules. It is emulated,
//! and thirty times slower than what it runs on.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// The programs that it takes to make and run one.
pub const TOOLS: [&str; 5] = ["qemu-system-x86_64", "busybox", "cpio", "modprobe", "strip"];

/// A machine that is not running yet.
#[derive(Debug)]
pub struct Machine {
    folder: TempDir,
    kernel: PathBuf,
    version: String,
    /// Modules that it loads, in order.
    modules: Vec<String>,
}

impl Machine {
    /// An empty one. `None`: Debian's kernel is not installed.
    ///
    /// # Panics
    /// There is no room for a test.
    #[must_use]
    pub fn new() -> Option<Self> {
        let found = fs::read_dir("/boot").ok()?.flatten().filter_map(|entry| {
            let version = entry.file_name().to_str()?.strip_prefix("vmlinuz-")?.to_owned();
            Path::new("/lib/modules").join(&version).is_dir().then(|| (entry.path(), version))
        });
        let (kernel, version) = found.max()?;
        let folder = tempfile::tempdir().expect("there is room for a test");
        let machine = Self { folder, kernel, version, modules: Vec::new() };
        for name in ["bin", "proc", "sys", "dev", "tmp", "modules"] {
            fs::create_dir_all(machine.system().join(name)).expect("the test's folder is writable");
        }
        machine.put(Path::new("/bin/busybox"), "/bin/busybox");
        Some(machine)
    }

    /// Has it load modules, with those that they need.
    ///
    /// # Panics
    /// There is no such module.
    pub fn load(&mut self, modules: &[&str]) {
        for name in modules {
            let needed = read("modprobe", &["--show-depends", "--set-version", &self.version, name]);
            for line in needed.lines() {
                let Some(path) = line.strip_prefix("insmod ").map(str::trim) else { continue };
                let file = Path::new(path).file_name().expect("a module has a name");
                let there = format!("/modules/{}", file.to_string_lossy());
                if !self.modules.contains(&there) {
                    self.put(Path::new(path), &there);
                    self.modules.push(there);
                }
            }
        }
    }

    /// Gives it a program, at this path, and the libraries that it needs.
    ///
    /// # Panics
    /// There is no such program.
    pub fn install(&self, program: &Path, at: &str) {
        let to = self.make_way(at);
        read("strip", &["-o", &to.to_string_lossy(), &program.to_string_lossy()]);
        // "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)", and the loader by its path alone.
        let needed = read("ldd", &[&program.to_string_lossy()]);
        for library in needed.split_whitespace().filter(|word| word.starts_with('/')) {
            self.put(Path::new(library), library);
        }
    }

    /// Starts it, has it run this script of a shell, and waits until it has stopped. What it said.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn run(self, script: &str) -> String {
        let modules: Vec<String> = self.modules.iter().map(|it| format!("busybox insmod {it}\n")).collect();
        let init = format!(
            "#!/bin/busybox sh\n\
             export PATH=/bin TMPDIR=/tmp\n\
             busybox mount -t proc proc /proc\n\
             busybox mount -t sysfs sys /sys\n\
             busybox mount -t devtmpfs dev /dev\n\
             busybox ip link set lo up\n\
             {}\n{script}\nbusybox reboot -f\n",
            modules.concat()
        );
        let to = self.make_way("/init");
        fs::write(&to, init).expect("the test's folder is writable");
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).expect("the test's folder is ours");
        let image = self.folder.path().join("image");
        let pack = format!("find . | cpio --quiet -o -H newc > {}", image.display());
        let status = Command::new("sh").arg("-c").arg(pack).current_dir(self.system()).status();
        assert!(status.is_ok_and(|status| status.success()), "the image cannot be packed");
        let output = Command::new("qemu-system-x86_64")
            .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024"])
            .args(["-nographic", "-no-reboot", "-append", "console=ttyS0 quiet panic=-1"])
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(image)
            .stdin(Stdio::null())
            .output()
            .expect("QEMU is installed");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn system(&self) -> PathBuf {
        self.folder.path().join("system")
    }

    fn make_way(&self, at: &str) -> PathBuf {
        let to = self.system().join(at.trim_start_matches('/'));
        let folder = to.parent().expect("a file is in a folder");
        fs::create_dir_all(folder).expect("the test's folder is writable");
        to
    }

    fn put(&self, from: &Path, at: &str) {
        let to = self.make_way(at);
        fs::copy(from, to).unwrap_or_else(|error| panic!("cannot copy {}: {error}", from.display()));
    }
}

fn read(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("cannot start {program}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
