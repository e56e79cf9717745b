//! Attaching the firewall to interfaces, pinning it there, and taking over what an earlier process has left.

use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, XdpMode};

use super::{Firewall, errno};

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, before the kernel has made anything of a frame.
    Native,
    /// In the kernel's stack: the driver cannot do it.
    Generic,
}

/// Which ways of attaching are tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ask {
    /// In the driver, else in the stack.
    #[default]
    Any,
    /// This one only.
    Only(Mode),
}

/// An interface that the firewall is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// How.
    pub mode: Mode,
    /// Whether an earlier process had left it attached, so that there was no moment without.
    pub taken_over: bool,
    /// Why it ends with this process though it was to be pinned.
    pub not_pinned: Option<String>,
}

/// Why an interface cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// There is none.
    #[error("there is no interface {0}: see `ip link`")]
    NoInterface(String),
    /// Another program is there.
    #[error("{0} has an XDP program of somebody else: see `ip link show {0}`")]
    Busy(String),
    /// Not permitted.
    #[error("attaching to {0} needs CAP_NET_ADMIN (or root)")]
    NotPermitted(String),
    /// Neither in the driver nor in the stack.
    #[error("{0} takes no XDP program")]
    Refused(String, #[source] Box<ProgramError>),
}

impl Firewall {
    /// Attaches to an interface. Where `pins` names a folder of a bpffs, the firewall outlives this process there, and one
    /// that an earlier process has left is replaced without a moment between.
    ///
    /// # Errors
    /// [`AttachError`]; nothing is attached then.
    pub fn attach(
        &mut self,
        interface: &str,
        ask: Ask,
        pins: Option<&Path>,
    ) -> Result<Attached, AttachError> {
        let tried = match ask {
            Ask::Any => &[Mode::Native, Mode::Generic][..],
            Ask::Only(Mode::Native) => &[Mode::Native],
            Ask::Only(Mode::Generic) => &[Mode::Generic],
        };
        if let Some(pins) = pins
            && let Some(mode) = self.take_over(interface, tried, pins)
        {
            return Ok(Attached { mode, taken_over: true, not_pinned: None });
        }
        let mode = self.attach_one_of(interface, tried)?;
        let not_pinned = match pins.map(|pins| (pins, make_pins(pins))) {
            Some((pins, Ok(()))) => match self.pin(interface, mode, pins) {
                Ok(()) => None,
                Err(problem) => {
                    // What was to be pinned is gone.
                    self.attach_one_of(interface, &[mode])?;
                    Some(problem)
                }
            },
            Some((_, Err(problem))) => Some(problem),
            None => None,
        };
        Ok(Attached { mode, taken_over: false, not_pinned })
    }

    /// Detaches from an interface, if it is attached there.
    pub fn detach(&mut self, interface: &str, pins: Option<&Path>) {
        if let Some(pins) = pins {
            unpin(interface, pins);
        }
        if let Some(link) = self.links.remove(interface) {
            // What is gone with its interface need not be detached.
            self.program_mut().detach(link).unwrap_or(());
        }
    }

    fn attach_as(&mut self, interface: &str, mode: XdpMode) -> Result<(), AttachError> {
        let attached = self.program_mut().attach(interface, mode);
        let link = attached.map_err(|error| {
            let name = interface.to_owned();
            if matches!(error, ProgramError::UnknownInterface { .. }) {
                return AttachError::NoInterface(name);
            }
            match errno(&error) {
                Some(rustix::io::Errno::BUSY | rustix::io::Errno::EXIST) => AttachError::Busy(name),
                Some(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => AttachError::NotPermitted(name),
                Some(rustix::io::Errno::NODEV) => AttachError::NoInterface(name),
                _ => AttachError::Refused(name, Box::new(error)),
            }
        })?;
        self.links.insert(interface.to_owned(), link);
        Ok(())
    }

    /// Attaches in the first of these ways that the interface takes.
    fn attach_one_of(&mut self, interface: &str, tried: &[Mode]) -> Result<Mode, AttachError> {
        let mut refused = AttachError::NoInterface(interface.to_owned());
        for mode in tried {
            let as_xdp = match mode {
                Mode::Native => XdpMode::Driver,
                Mode::Generic => XdpMode::Skb,
            };
            match self.attach_as(interface, as_xdp) {
                Ok(()) => return Ok(*mode),
                // The next way would find the same.
                Err(
                    error @ (AttachError::NoInterface(_)
                    | AttachError::NotPermitted(_)
                    | AttachError::Busy(_)),
                ) => {
                    return Err(error);
                }
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// Takes over what an earlier process has left attached. `None`: nothing, or nothing that is of use.
    fn take_over(&mut self, interface: &str, tried: &[Mode], pins: &Path) -> Option<Mode> {
        for mode in [Mode::Native, Mode::Generic] {
            let path = pin_path(interface, mode, pins);
            let Ok(pinned) = PinnedLink::from_pin(&path) else { continue };
            if tried.contains(&mode)
                && let Ok(link) = XdpLink::try_from(FdLink::from(pinned))
                && let Ok(link) = self.program_mut().attach_to_link(link)
            {
                self.links.insert(interface.to_owned(), link);
                return Some(mode);
            }
            // It is of another mode, or leads nowhere: the interface has gone, and another come by this name.
            std::fs::remove_file(&path).unwrap_or(());
        }
        None
    }

    /// Pins an interface's link, and keeps it.
    fn pin(&mut self, interface: &str, mode: Mode, pins: &Path) -> Result<(), String> {
        let Some(link) = self.links.remove(interface) else { return Ok(()) };
        let path = pin_path(interface, mode, pins);
        let failed = |error: &dyn std::error::Error| format!("cannot pin {}: {error}", path.display());
        let link = self.program_mut().take_link(link).map_err(|error| failed(&error))?;
        let link = FdLink::try_from(link).map_err(|error| failed(&error))?;
        let pinned = link.pin(&path).map_err(|error| failed(&error))?;
        let link = XdpLink::try_from(FdLink::from(pinned)).map_err(|error| failed(&error))?;
        // The same program again: so it is the program's to keep.
        let link = self.program_mut().attach_to_link(link).map_err(|error| failed(&error))?;
        self.links.insert(interface.to_owned(), link);
        Ok(())
    }
}

impl Mode {
    /// In a word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// Removes what an earlier process has left pinned for interfaces that are no longer to be guarded: the firewall there
/// ends with it. Says which.
#[must_use]
pub fn clean(pins: &Path, keep: &[String]) -> Vec<String> {
    let mut removed = Vec::new();
    for entry in std::fs::read_dir(pins).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((_, interface)) = name.split_once('-') else { continue };
        let interface = interface.replace(':', ".");
        if !keep.contains(&interface) && std::fs::remove_file(entry.path()).is_ok() {
            removed.push(interface);
        }
    }
    removed
}

/// `BPF_FS_MAGIC`.
const BPFFS: u64 = 0xcafe_4a11;

/// Makes the folder, where it is on a file system that can hold what is pinned.
fn make_pins(pins: &Path) -> Result<(), String> {
    let parent = pins.parent().unwrap_or(pins);
    match rustix::fs::statfs(parent) {
        Ok(found) if u64::try_from(found.f_type).is_ok_and(|kind| kind == BPFFS) => {}
        Ok(_) => {
            let remedy = "mount one there (`mount -t bpf bpf FOLDER`), or name another in [xdp] pins";
            return Err(format!("{} is not a bpffs: {remedy}", parent.display()));
        }
        Err(error) => return Err(cannot_use(parent, error.into())),
    }
    std::fs::create_dir_all(pins).map_err(|error| cannot_use(pins, error))
}

/// What is wrong with a folder for pins, and the remedy.
fn cannot_use(folder: &Path, error: std::io::Error) -> String {
    let remedy = match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            ": /sys/fs/bpf is mostly root's alone; name in [xdp] pins a bpffs that belongs to this process's user, \
             such as mc-proxy.service.d/xdp.conf mounts"
        }
        std::io::ErrorKind::NotFound => {
            ": mount a bpffs there (`mount -t bpf bpf FOLDER`), or name another in [xdp] pins"
        }
        _ => "",
    };
    format!("cannot use {}: {error}{remedy}", folder.display())
}

fn unpin(interface: &str, pins: &Path) {
    for mode in [Mode::Native, Mode::Generic] {
        // Mostly it is pinned as the other.
        std::fs::remove_file(pin_path(interface, mode, pins)).unwrap_or(());
    }
}

/// The name under which a link is pinned. A bpffs takes no dots, and interfaces have no colons.
fn pin_path(interface: &str, mode: Mode, pins: &Path) -> PathBuf {
    pins.join(format!("{}-{}", mode.word(), interface.replace('.', ":")))
}
