"""The agent's slot table: one row per slot in shared memory, written by the worker only.

The agent process reads it without messages: how many slots run, and whether a running
slot still makes progress. Rows are written field by field without a lock; a reader may
see one row mid-change, never a torn field (aligned 8-byte stores).
"""

import mmap
import os
import struct
from enum import IntEnum
from typing import Final, NamedTuple

ROW: Final = struct.Struct("<QQQd")


class SlotState(IntEnum):
    """What a slot does."""

    IDLE = 0
    PREFILL = 1
    DECODE = 2


class SlotRow(NamedTuple):
    """One slot as last written. ``progress_at``: ``time.monotonic()`` of the last token."""

    state: SlotState
    stream_id: int
    tokens: int
    progress_at: float


class SharedSlotTable:
    """``slots`` rows over the memory behind ``fd``; both sides map the same descriptor."""

    def __init__(self, fd: int, slots: int) -> None:
        self._map = mmap.mmap(fd, max(slots, 1) * ROW.size)
        self.slots = slots

    def write(self, slot: int, row: SlotRow) -> None:
        """Replace one row. The worker's side only."""
        ROW.pack_into(self._map, slot * ROW.size, *row)

    def read(self, slot: int) -> SlotRow:
        """One row as it is now."""
        state, stream_id, tokens, progress_at = ROW.unpack_from(self._map, slot * ROW.size)
        return SlotRow(SlotState(state), stream_id, tokens, progress_at)

    def rows(self) -> list[SlotRow]:
        """All rows as they are now."""
        return [self.read(slot) for slot in range(self.slots)]

    def close(self) -> None:
        """Unmap; idempotent."""
        self._map.close()


def create_slot_memory(slots: int) -> int:
    """A descriptor of zeroed shared memory for ``slots`` rows; the caller closes it."""
    fd = os.memfd_create("paddler-slots", os.MFD_CLOEXEC)
    os.ftruncate(fd, max(slots, 1) * ROW.size)
    return fd
