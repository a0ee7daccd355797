"""What a worker gives up before it opens a model, which is a stranger's file.

Weights and templates are parsed by code that was not written for hostile input. Whoever takes
the worker over that way shall find no network, no way to more rights and no way into other
processes. What it keeps: the files and devices of its user, its pipes, children of its own.

By a filter of system calls (seccomp(2)) on Linux, for all threads and children. Elsewhere, and
on other processors, nothing is given up, and the log says so.
"""

import ctypes
import errno
import logging
import os
import platform
import resource
import sys
from collections.abc import Sequence
from typing import Any, ClassVar, Final, NamedTuple

_log = logging.getLogger(__name__)

# linux/prctl.h, linux/seccomp.h, linux/audit.h, linux/bpf_common.h
_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_SET_MODE_FILTER: Final = 1
_SECCOMP_FILTER_FLAG_TSYNC: Final = 1
_RET_ALLOW: Final = 0x7FFF0000
_RET_ERRNO: Final = 0x00050000
_RET_KILL: Final = 0x80000000
_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_RETURN: Final = 0x06
_AT_NUMBER, _AT_ARCHITECTURE, _AT_FIRST_ARGUMENT = 0, 4, 16  # of struct seccomp_data

# Sockets of these families stay: pipes of our own, and the kernel's news of devices.
_LOCAL_FAMILIES: Final = (1, 16)  # AF_UNIX, AF_NETLINK


class _Machine(NamedTuple):
    """Numbers of system calls on one kind of processor. ``denied``: what nobody here needs."""

    architecture: int
    seccomp: int
    socket: int
    denied: tuple[int, ...]
    foreign_from: int | None = None
    """Numbers from here on are of another convention of calls (x32)."""


# ptrace, process_vm_readv, process_vm_writev, mount, umount2, pivot_root, unshare, setns, bpf,
# userfaultfd, kexec_load, init_module, finit_module, io_uring_setup (it opens sockets, too).
_MACHINES: Final = {
    "x86_64": _Machine(
        0xC000003E,
        317,
        41,
        (101, 310, 311, 165, 166, 155, 272, 308, 321, 323, 246, 175, 313, 425),
        0x40000000,
    ),
    "aarch64": _Machine(
        0xC00000B7,
        277,
        198,
        (117, 270, 271, 40, 39, 41, 97, 268, 280, 282, 104, 105, 273, 425),
    ),
}


class _Instruction(ctypes.Structure):
    """``struct sock_filter``."""

    _fields_: ClassVar[Sequence[Any]] = (
        ("code", ctypes.c_uint16),
        ("jump_true", ctypes.c_uint8),
        ("jump_false", ctypes.c_uint8),
        ("operand", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_: ClassVar[Sequence[Any]] = (
        ("length", ctypes.c_uint16),
        ("filter", ctypes.POINTER(_Instruction)),
    )


def confine() -> bool:
    """Give it all up, for good; whether it could be done."""
    # What is in memory are prompts: no file shall hold them after a crash.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    machine = _MACHINES.get(platform.machine())
    if sys.platform != "linux" or machine is None or sys.maxsize < 1 << 32:
        _log.info("workers are not confined on this system: it has no known system call filter")
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return _tell_failure()
    instructions = _filter(machine)
    program = _Program(len(instructions), (_Instruction * len(instructions))(*instructions))
    libc.syscall.restype = ctypes.c_long
    if libc.syscall(
        ctypes.c_long(machine.seccomp),
        ctypes.c_long(_SECCOMP_SET_MODE_FILTER),
        ctypes.c_long(_SECCOMP_FILTER_FLAG_TSYNC),
        ctypes.byref(program),
    ):
        return _tell_failure()
    return True


def _filter(machine: _Machine) -> list[_Instruction]:
    refuse = _Instruction(_RETURN, 0, 0, _RET_ERRNO | errno.EACCES)
    program = [
        _Instruction(_LOAD, 0, 0, _AT_ARCHITECTURE),
        # Calls of another architecture have other numbers: no program here makes them.
        _Instruction(_JUMP_EQUAL, 1, 0, machine.architecture),
        _Instruction(_RETURN, 0, 0, _RET_KILL),
        _Instruction(_LOAD, 0, 0, _AT_NUMBER),
    ]
    if machine.foreign_from is not None:
        program += [_Instruction(_JUMP_AT_LEAST, 0, 1, machine.foreign_from), refuse]
    for number in machine.denied:
        program += [_Instruction(_JUMP_EQUAL, 0, 1, number), refuse]
    allow = _Instruction(_RETURN, 0, 0, _RET_ALLOW)
    program += [
        _Instruction(_JUMP_EQUAL, 1, 0, machine.socket),
        allow,
        _Instruction(_LOAD, 0, 0, _AT_FIRST_ARGUMENT),
    ]
    for family in _LOCAL_FAMILIES:
        program += [_Instruction(_JUMP_EQUAL, 0, 1, family), allow]
    return [*program, refuse]


def _tell_failure() -> bool:
    number = ctypes.get_errno()
    _log.warning("the worker cannot be confined: %s", os.strerror(number))
    return False
