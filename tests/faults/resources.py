"""What a machine runs short of, made on purpose: disks, descriptors, memory, and a steady clock."""

import contextlib
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

PAGE_BYTES: Final = resource.getpagesize()
_FAKE_CLOCKS: Final = "*/faketime/libfaketimeMT.so.1"


class Disk:
    """A small file system of its own at ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self, *, spare_bytes: int = 0) -> None:
        """Leave no byte free but ``spare_bytes``, of whole pages."""
        with open(self._filler, "ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(PAGE_BYTES)):
                pass
        size = self._filler.stat().st_size
        with open(self._filler, "r+b") as file:
            file.truncate(size - spare_bytes)

    def clear(self) -> None:
        """Have space again."""
        self._filler.unlink()

    def set_writable(self, is_writable: bool) -> None:
        """Also root cannot write to what is mounted read-only."""
        _mount("-o", "remount,rw" if is_writable else "remount,ro", str(self.path))


@contextlib.contextmanager
def small_disk(path: Path, *, kib: int) -> Iterator[Disk]:
    """A tmpfs within the block; the test is skipped where none can be mounted."""
    path.mkdir()
    try:
        _mount("-t", "tmpfs", "-o", f"size={kib}k,mode=0755", "tmpfs", str(path))
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"") or str(error).encode()
        pytest.skip(f"a tmpfs cannot be mounted here: {said.decode(errors='replace').strip()}")
    try:
        yield Disk(path)
    finally:
        # Lazily: who has a file open may still be about to end.
        subprocess.run(["umount", "--lazy", str(path)], check=True, timeout=10)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True, timeout=10)


class WallClock:
    """The wall clock of processes that are started with ``env``; the monotonic one is left alone.

    The test is skipped where there is no libfaketime.
    """

    def __init__(self, folder: Path) -> None:
        library = next(Path("/usr/lib").glob(_FAKE_CLOCKS), None)
        if library is None:
            pytest.skip("libfaketime is not installed")
        if "LD_PRELOAD" in os.environ:
            pytest.skip("something is preloaded already: a sanitizer, say")
        self._offset = folder / "clock"
        self.step(0)
        self.env = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._offset),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def step(self, offset_s: int) -> None:
        """Be so far from the true time from now on."""
        # At once: half an offset is another one.
        draft = self._offset.with_suffix(".new")
        draft.write_text(f"{offset_s:+d}\n")
        draft.replace(self._offset)


@contextlib.contextmanager
def limited(pid: int, kind: int, limit: int) -> Iterator[None]:
    """A soft limit of a running process, and of what it starts, within the block."""
    soft, hard = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (limit, hard))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, kind, (soft, hard))


def virtual_bytes(pid: int) -> int:
    """Address space that a process has taken."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * PAGE_BYTES
