"""Runs a program under the restrictions of a systemd unit, without systemd. Usage: unit.py UNIT[,DROP-IN...] PROGRAM [ARGUMENT...]

What the unit's files say is read from them: its user, ExecStartPre, capabilities, directories, address families and system
calls. The program is the one given, and the folder of its `--config` stands for `/srv/<name of the unit>`. A directive that
is not known here is an error, so that none is left out by accident. Needs root and `systemd-analyze`, which knows the groups
of system calls.

It runs itself twice: as root for namespaces and directories, then, as the unit's user, for the filter.
"""

import ctypes
import errno
import os
import re
import shlex
import subprocess
import sys

# Acted on below.
APPLIED = """User Group ExecStartPre AmbientCapabilities CapabilityBoundingSet NoNewPrivileges ProtectSystem ReadWritePaths
ProtectKernelTunables RestrictAddressFamilies SystemCallFilter MemoryDenyWriteExecute RestrictNamespaces RestrictRealtime
UMask""".split()
# Of systemd alone, or about what no program of ours does.
LEFT_OUT = """ExecStart ExecReload Type NotifyAccess Restart RestartSec RestartPreventExitStatus KillSignal KillMode TimeoutStopSec
LimitNOFILE ProtectHome PrivateTmp PrivateDevices ProtectClock ProtectControlGroups ProtectHostname ProtectKernelLogs ProtectKernelModules ProtectProc
LockPersonality RestrictSUIDSGID SystemCallArchitectures""".split()

libc = ctypes.CDLL(None, use_errno=True)


def check(result, what):
    if result < 0:
        raise OSError(ctypes.get_errno() or -result, f"{what}: {os.strerror(ctypes.get_errno() or -result)}")
    return result


def read(files):
    """The directives of [Service], each with its values; an empty one takes back what was said before."""
    found = {}
    for file in files:
        section = None
        for line in open(file):
            line = line.strip()
            if line.startswith("["):
                section = line
            elif section == "[Service]" and line and line[0] not in "#;":
                key, value = line.split("=", 1)
                if key not in APPLIED + LEFT_OUT:
                    sys.exit(f"unit.py: {file}: {key} is not known here: add it")
                found[key] = found.get(key, []) + [value] if value else []
    return found


def words(unit, key):
    return " ".join(unit.get(key, [])).split()


def yes(unit, key):
    return unit.get(key, ["no"])[-1] == "yes"


# linux/mount.h, linux/sched.h
CLONE_NEWNS, MS_BIND, MS_REC, MS_SLAVE = 0x20000, 4096, 16384, 1 << 19
SYS_mount_setattr, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1


def mount(source, target, kind, flags=0, data=None):
    encode = lambda text: text.encode() if text is not None else None
    check(libc.mount(encode(source), encode(target), encode(kind), ctypes.c_ulong(flags), encode(data)), f"mount {target}")


def set_read_only(path, read_only, recursive=True):
    flags = (MOUNT_ATTR_RDONLY, 0) if read_only else (0, MOUNT_ATTR_RDONLY)
    attributes = (ctypes.c_uint64 * 4)(*flags, 0, 0)
    at = AT_RECURSIVE if recursive else 0
    check(libc.syscall(SYS_mount_setattr, AT_FDCWD, path.encode(), at, attributes, 32), f"mount_setattr {path}")


def add_user(name):
    """A user that this machine does not have, for this mount namespace."""
    for file, line in [("passwd", f"{name}:x:64999:64999::/:/usr/sbin/nologin\n"), ("group", f"{name}:x:64999:\n")]:
        text = open(f"/etc/{file}").read()
        copy = f"/run/{file}"
        with open(copy, "w") as out:
            out.write(text if re.search(f"^{name}:", text, re.M) else text + line)
        mount(copy, f"/etc/{file}", None, MS_BIND)


def directories(unit, name, root):
    check(libc.unshare(CLONE_NEWNS), "unshare")
    mount(None, "/", None, MS_SLAVE | MS_REC)
    # What the unit's commands make there ends with this namespace.
    mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
    user = unit["User"][-1]
    add_user(user)
    for command in unit.get("ExecStartPre", []):
        if not command.startswith("+"):
            sys.exit("unit.py: ExecStartPre without + is not known here")
        # Twice: the unit starts more than once.
        for _ in range(2):
            subprocess.run(shlex.split(command[1:].replace("$$", "$")), check=True)
    for folder, _, files in os.walk(root):
        for path in [folder] + [os.path.join(folder, file) for file in files]:
            subprocess.run(["chown", "-h", f"{user}:{user}", path], check=True)
    if unit.get("ProtectSystem") != ["strict"]:
        sys.exit("unit.py: only ProtectSystem=strict is known here")
    writable = [root if path == f"/srv/{name}" else path for path in words(unit, "ReadWritePaths")]
    for path in writable:
        mount(path, path, None, MS_BIND | MS_REC)
    set_read_only("/", True)
    for path in ["/dev", "/proc"] + ([] if yes(unit, "ProtectKernelTunables") else ["/sys"]) + writable:
        set_read_only(path, False, path != "/proc")
    if yes(unit, "ProtectKernelTunables"):
        mount("/proc/sys", "/proc/sys", None, MS_BIND)
        set_read_only("/proc/sys", True)


def limits(unit, argv):
    user, capabilities = unit["User"][-1], lambda key: [word.removeprefix("CAP_").lower() for word in words(unit, key)]
    plus = lambda names: ",".join(["-all"] + [f"+{name}" for name in names])
    ambient = plus(capabilities("AmbientCapabilities"))
    os.umask(int(unit.get("UMask", ["0022"])[-1], 8))
    command = ["setpriv", f"--reuid={user}", f"--regid={unit['Group'][-1]}", "--clear-groups", "--inh-caps", ambient]
    command += ["--ambient-caps", ambient, "--bounding-set", plus(capabilities("CapabilityBoundingSet"))]
    command += ["--no-new-privs"] if yes(unit, "NoNewPrivileges") else []
    os.execvp(command[0], command + ["--", sys.executable, __file__, "--filter"] + argv)


ALLOW, KILL = 0x7FFF0000, 0x80000000
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16, "AF_PACKET": 17}
EQUAL, NOT_EQUAL, MASKED_EQUAL, GREATER = 4, 1, 7, 6


class Compare(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def expand(names):
    """Names of system calls for a list in which groups of them (@...) may be."""
    found = set()
    for name in names:
        if not name.startswith("@"):
            found.add(name)
            continue
        listed = subprocess.run(["systemd-analyze", "--no-pager", "syscall-filter", name], check=True, capture_output=True)
        lines = [line.strip() for line in listed.stdout.decode().splitlines()[1:]]
        found |= expand(line for line in lines if line and not line.startswith("#"))
    return found


class Filter:
    def __init__(self, default):
        self.library = ctypes.CDLL("libseccomp.so.2")
        self.library.seccomp_init.restype = ctypes.c_void_p
        self.context = ctypes.c_void_p(self.library.seccomp_init(ctypes.c_uint32(default)))

    def add(self, action, name, *compares):
        number = self.library.seccomp_syscall_resolve_name(name.encode())
        # Many are of other machines.
        if number >= 0:
            rules = (Compare * len(compares))(*compares)
            add = self.library.seccomp_rule_add_array
            check(add(self.context, ctypes.c_uint32(action), number, len(compares), rules), f"a rule for {name}")

    def refuse(self, error, name, *compares):
        self.add(0x00050000 | error, name, *compares)

    def load(self):
        check(self.library.seccomp_load(self.context), "seccomp_load")


def filters(unit):
    """The filters that systemd makes of these directives; each is a filter of its own, the strictest answer counts."""
    refused = Filter(ALLOW)
    known = sorted(FAMILIES[name] for name in words(unit, "RestrictAddressFamilies"))
    for family in range(max(FAMILIES.values()) + 1):
        if family not in known:
            refused.refuse(errno.EAFNOSUPPORT, "socket", Compare(0, EQUAL, family))
    refused.refuse(errno.EAFNOSUPPORT, "socket", Compare(0, GREATER, max(FAMILIES.values())))
    if yes(unit, "MemoryDenyWriteExecute"):
        refused.refuse(errno.EPERM, "mmap", Compare(2, MASKED_EQUAL, 6, 6))
        refused.refuse(errno.EPERM, "mprotect", Compare(2, MASKED_EQUAL, 4, 4))
        refused.refuse(errno.EPERM, "pkey_mprotect", Compare(2, MASKED_EQUAL, 4, 4))
    if yes(unit, "RestrictNamespaces"):
        for name in ["unshare", "setns"]:
            refused.refuse(errno.EPERM, name)
        for bit in [0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000]:
            refused.refuse(errno.EPERM, "clone", Compare(0, MASKED_EQUAL, bit, bit))
        # Its flags are in memory, where no filter can see them: programs fall back to clone.
        refused.refuse(errno.ENOSYS, "clone3")
    if yes(unit, "RestrictRealtime"):
        for policy in [1, 2, 6]:
            refused.refuse(errno.EPERM, "sched_setscheduler", Compare(1, EQUAL, policy))
    allowed = Filter(KILL)
    for name in sorted(expand(words(unit, "SystemCallFilter"))):
        allowed.add(ALLOW, name)
    refused.load()
    allowed.load()


if sys.argv[1] == "--filter":
    files, argv = sys.argv[2].split(","), sys.argv[3:]
    # A death signal does not outlive a change of user.
    check(libc.prctl(1, ctypes.c_ulong(9), 0, 0, 0), "prctl")
    filters(read(files))
    os.execvp(argv[0], argv)
files, argv = sys.argv[1].split(","), sys.argv[2:]
unit = read(files)
name = os.path.basename(files[0]).removesuffix(".service")
directories(unit, name, os.path.dirname(os.path.abspath(argv[argv.index("--config") + 1])))
limits(unit, [sys.argv[1]] + argv)
