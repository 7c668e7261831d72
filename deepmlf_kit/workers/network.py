"""Refuse a process, or one thread and what it starts, every connection: what reads people's clips has nobody to tell.

MediaPipe reports use to its maker, from native code and without a switch. On Linux the kernel refuses (seccomp): a thread
that has no sockets, and whose threads have none, can look no name up and send nothing, whatever library asks. Elsewhere
a worker's environment names a proxy that nobody serves (`NO_NETWORK`), which MediaPipe and the Hugging Face libraries go by.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
import sys

# A proxy at the discard port, and no look-ups by Hugging Face libraries: what is not at hand fails at once.
NO_NETWORK = {
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"),
    "HF_HUB_OFFLINE": "1",
}
"""Environment variables of a worker that needs no network."""

# linux/audit.h, and the system calls of either machine: socket, seccomp
_MACHINES = {"x86_64": (0xC000003E, 41, 317), "aarch64": (0xC00000B7, 198, 277)}
_IO_URING_SETUP = 425  # could open sockets without the system call
_X32 = 0x40000000  # x86_64's second numbering of system calls
_NO_NEW_PRIVILEGES, _SET_FILTER, _ALL_THREADS = 38, 1, 1  # linux/prctl.h, linux/seccomp.h
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EACCES


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def can_refuse_network() -> bool:
    """Whether this system's kernel can refuse sockets to a thread."""
    return sys.platform == "linux" and platform.machine() in _MACHINES and sys.maxsize > 2**32


def refuse_network(*, whole_process: bool = False) -> bool:
    """From now on this thread, and every thread and process that it starts, gets no socket; it cannot be undone.

    Args:
        whole_process: the threads that run already, too.

    Returns:
        Whether the kernel does so; False where it cannot (`can_refuse_network`), or is not allowed to.
    """
    if not can_refuse_network():
        return False
    machine, opening, filtering = _MACHINES[platform.machine()]
    program = _Program(8, _refusing(machine, opening))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        return False
    flags = _ALL_THREADS if whole_process else 0
    return libc.syscall(filtering, _SET_FILTER, flags, ctypes.byref(program)) == 0


def _refusing(machine: int, opening: int) -> bytes:
    """The filter as BPF: (code, jump where true, jump where false, operand), jumps counted from the next instruction."""
    load, equal, at_least, end = 0x20, 0x15, 0x35, 0x06
    instructions = [
        (load, 0, 0, 4),  # seccomp_data.arch
        (equal, 0, 5, machine),
        (load, 0, 0, 0),  # seccomp_data.nr
        (at_least, 3, 0, _X32),
        (equal, 2, 0, opening),
        (equal, 1, 0, _IO_URING_SETUP),
        (end, 0, 0, _ALLOW),
        (end, 0, 0, _REFUSE),
    ]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)
