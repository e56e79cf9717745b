"""Runs a program on a kernel that seems to lack something. Usage: without.py CALL[:COMMAND] PROGRAM [ARGUMENT...]

CALL is bpf or io_uring_setup; COMMAND the first argument with which the call is not known (bpf(2) has commands). A filter
(seccomp(2)) answers as a kernel does that has never heard of it: ENOSYS for the call, EINVAL for the command.
"""

import ctypes
import os
import platform
import struct
import sys

NUMBERS = {
    "x86_64": {"bpf": 321, "io_uring_setup": 425},
    "aarch64": {"bpf": 280, "io_uring_setup": 425},
}
ENOSYS, EINVAL = 38, 22
# linux/bpf_common.h, linux/seccomp.h, linux/prctl.h
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
NUMBER_AT, FIRST_ARGUMENT_AT = 0, 16

call, _, command = sys.argv[1].partition(":")
number = NUMBERS[platform.machine()][call]
steps = [(LOAD, 0, 0, NUMBER_AT)]
if command:
    steps += [(EQUAL, 0, 3, number), (LOAD, 0, 0, FIRST_ARGUMENT_AT), (EQUAL, 0, 1, int(command)), (RETURN, 0, 0, ERRNO | EINVAL)]
else:
    steps += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ERRNO | ENOSYS)]
steps.append((RETURN, 0, 0, ALLOW))
code = b"".join(struct.pack("HBBI", *step) for step in steps)
buffer = ctypes.create_string_buffer(code, len(code))
program = struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
for option, value, more in [(PR_SET_NO_NEW_PRIVS, 1, None), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program)]:
    if libc.prctl(option, ctypes.c_ulong(value), more if more else 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")
os.execvp(sys.argv[2], sys.argv[2:])
