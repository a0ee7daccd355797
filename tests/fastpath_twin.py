"""What ``paddler._fastpath`` must do, said as plainly as possible: short, obvious, slow.

Same names, same results, same exception types, same status and close codes; the messages
of errors and the numbers of leases are the compiled module's own business.
"""

import contextlib
import itertools
import math
import os
import re
import socket
import struct
from asyncio import WriteTransport
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from paddler.errors import RemoteProtocolError

Buffer = bytes | bytearray | memoryview


def borrow(data: Buffer) -> memoryview:
    view = memoryview(data)
    if not view.c_contiguous:
        raise BufferError("not contiguous")
    return view.cast("B")


def refuse(seen: str, *, status: int = 400, close_code: int = 1002) -> RemoteProtocolError:
    return RemoteProtocolError(seen, status=status, close_code=close_code)


# --- 1. HTTP heads ---------------------------------------------------------------------------

MAX_REQUEST_LINE_BYTES = 8192
MAX_FIELDS = 100

LINE_END = re.compile(rb"\r\n|\r\Z|[\0\r\n]")
TOKEN = rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+)"
REQUEST_LINE = re.compile(TOKEN + rb" ([!-~]+) HTTP/([0-9])\.([0-9])")
FIELD = re.compile(TOKEN + rb":[ \t]*([\t -~\x80-\xff]*?)[ \t]*\r\n")


def head_end(data: Buffer, start: int = 0) -> int:
    head = bytes(borrow(data))
    if not 0 <= start <= len(head):
        raise ValueError("start")
    if head[:start].endswith(b"\r"):
        start -= 1
    line_start = None
    for match in LINE_END.finditer(head, start):
        if match[0] != b"\r\n":
            if match[0] == b"\r" and match.end() == len(head):
                return -1
            raise refuse("bare CR or LF, or NUL")
        if match.start() == line_start:
            return match.end()
        line_start = match.end()
    return -1


def parse_request_head(data: Buffer) -> tuple[str, str, int, list[tuple[str, str]]]:
    line, _, rest = bytes(borrow(data)).partition(b"\r")
    if len(line) > MAX_REQUEST_LINE_BYTES:
        raise refuse("long line", status=414)
    match = REQUEST_LINE.fullmatch(line)
    if not match:
        raise refuse("malformed request line")
    method, target, major, minor = (part.decode() for part in match.groups())
    if (major, minor) not in (("1", "0"), ("1", "1")):
        raise refuse("version", status=505)
    if not rest.startswith(b"\n"):
        raise refuse("bare CR")
    return method, target, int(minor), parse_fields(rest[1:])


def parse_fields(data: Buffer) -> list[tuple[str, str]]:
    rest = bytes(borrow(data))
    fields: list[tuple[str, str]] = []
    while not rest.startswith(b"\r\n"):
        if not rest:
            raise refuse("no blank line")
        if len(fields) == MAX_FIELDS:
            raise refuse("too many fields", status=431)
        match = FIELD.match(rest)
        if not match:
            raise refuse("malformed field")
        fields.append((match[1].lower().decode(), match[2].decode("latin-1")))
        rest = rest[match.end() :]
    if rest != b"\r\n":
        raise refuse("more after the blank line")
    return fields


# --- 2. WebSocket frames ---------------------------------------------------------------------

OPCODES = {0, 1, 2, 8, 9, 10}
LENGTH_BYTES = {126: 2, 127: 8}
SHORTEST = {126: 126, 127: 65536}


def parse_frame_header(
    data: Buffer, start: int, *, expect_masked: bool, max_payload_bytes: int
) -> tuple[int, bool, int, int, int] | None:
    if max_payload_bytes < 0:
        raise ValueError("max_payload_bytes")
    seen = bytes(borrow(data))
    if not 0 <= start <= len(seen):
        raise ValueError("start")
    seen = seen[start:]
    if len(seen) < 1:
        return None
    opcode, fin = seen[0] & 0x0F, bool(seen[0] & 0x80)
    if seen[0] & 0x70 or opcode not in OPCODES or (opcode >= 8 and not fin):
        raise refuse("reserved bit, reserved opcode, or control frame in fragments")
    if len(seen) < 2:
        return None
    length = seen[1] & 0x7F
    if bool(seen[1] & 0x80) != expect_masked or (opcode >= 8 and length > 125):
        raise refuse("mask, or long control frame")
    length_end = 2 + LENGTH_BYTES.get(length, 0)
    if len(seen) < length_end:
        return None
    payload_bytes = int.from_bytes(seen[2:length_end]) if length > 125 else length
    if payload_bytes >= 1 << 63 or payload_bytes < SHORTEST.get(length, 0):
        raise refuse("length")
    if payload_bytes > max_payload_bytes:
        raise refuse("too big", close_code=1009)
    header_end = length_end + 4 * expect_masked
    if len(seen) < header_end:
        return None
    mask_key = int.from_bytes(seen[length_end:header_end], "little")
    return opcode, fin, start + header_end, payload_bytes, mask_key


def apply_mask(data: Buffer, key: int, phase: int = 0) -> None:
    key_bytes = key.to_bytes(4, "little")
    view = borrow(data)
    if view.readonly:
        raise BufferError("read-only")
    for i in range(len(view)):
        view[i] ^= key_bytes[(i + phase) % 4]


def unmask_messages(
    data: Buffer, *, expect_masked: bool, max_payload_bytes: int
) -> tuple[list[tuple[int, int, int]], int]:
    view = borrow(data)
    if max_payload_bytes < 0:
        raise ValueError("max_payload_bytes")
    if view.readonly and expect_masked:
        raise BufferError("read-only")
    messages, at = [], 0
    while True:
        try:
            header = parse_frame_header(
                view, at, expect_masked=expect_masked, max_payload_bytes=max_payload_bytes
            )
        except RemoteProtocolError:
            break
        if header is None:
            break
        opcode, fin, start, payload_bytes, key = header
        if opcode not in (1, 2) or not fin or start + payload_bytes > len(view):
            break
        at = start + payload_bytes
        if expect_masked:
            apply_mask(view[start:at], key)
        messages.append((opcode, start, at))
    return messages, at


def encode_frame(opcode: int, payload: Buffer, mask_key: int = -1, fin: bool = True) -> bytes:
    body = bytearray(borrow(payload))
    if opcode not in OPCODES or (opcode >= 8 and (not fin or len(body) > 125)):
        raise ValueError("opcode or control frame")
    if len(body) < 126:
        length = bytes([len(body)])
    elif len(body) < 65536:
        length = bytes([126]) + len(body).to_bytes(2)
    else:
        length = bytes([127]) + len(body).to_bytes(8)
    first = bytes([opcode | 0x80 * fin])
    if mask_key == -1:
        return first + length + body
    apply_mask(body, mask_key)
    return first + bytes([length[0] | 0x80]) + length[1:] + mask_key.to_bytes(4, "little") + body


# --- 3. Slots --------------------------------------------------------------------------------


@dataclass
class Row:
    limit: int
    busy: int = 0


class SlotTable:
    def __init__(self, capacity: int = 16384) -> None:
        if not 0 < capacity <= 1 << 24:
            raise ValueError("capacity")
        self._capacity = capacity
        self._rows: dict[int, Row] = {}
        self._leases: dict[int, int] = {}
        self._numbers = itertools.count(1)
        self._cursor = 0

    @property
    def rows(self) -> int:
        return len(self._rows)

    @property
    def busy_total(self) -> int:
        return sum(row.busy for row in self._rows.values())

    @property
    def limit_total(self) -> int:
        return sum(row.limit for row in self._rows.values())

    def add(self, limit: int) -> int:
        check_limit(limit)
        if len(self._rows) == self._capacity:
            raise ValueError(f"full: {self._capacity}")
        row = next(row for row in itertools.count() if row not in self._rows)
        self._rows[row] = Row(limit)
        return row

    def remove(self, row: int) -> None:
        self._row(row)
        del self._rows[row]
        self._leases = {lease: held for lease, held in self._leases.items() if held != row}

    def set_limit(self, row: int, limit: int) -> None:
        found = self._row(row)
        check_limit(limit)
        found.limit = limit

    def busy(self, row: int) -> int:
        return self._row(row).busy

    def limit(self, row: int) -> int:
        return self._row(row).limit

    def claim(self, preferred: int = -1) -> int:
        free = [row for row, state in self._rows.items() if state.busy < state.limit]
        if not free:
            return 0
        chosen = min(free, key=lambda row: (self._rows[row].busy, row < self._cursor, row))
        if preferred in free and self._rows[preferred].busy == self._rows[chosen].busy:
            chosen = preferred
        else:
            self._cursor = chosen + 1
        self._rows[chosen].busy += 1
        lease = next(self._numbers)
        self._leases[lease] = chosen
        return lease

    def row_of(self, lease: int) -> int:
        return self._leases.get(lease, -1)

    def release(self, lease: int) -> bool:
        row = self._leases.pop(lease, None)
        if row is None:
            return False
        self._rows[row].busy -= 1
        return True

    def _row(self, row: int) -> Row:
        if row not in self._rows:
            raise IndexError(f"row {row}")
        return self._rows[row]


def check_limit(limit: int) -> None:
    if not 0 <= limit <= 32767:
        raise ValueError("limit")


# --- 4. Relay --------------------------------------------------------------------------------

FRAME_HEADER_BYTES = 12
FIRST_STRUCTURED_KIND = 8
OVERRUN = 255

FRAMING_RAW = 0
FRAMING_CHUNKED = 1
FRAMING_WEBSOCKET = 2

HEADER = struct.Struct("<IBBHI")
TEXT = 1


class SocketWriter:
    def __init__(self, transport: WriteTransport, fd: int) -> None:
        self._transport = transport
        self._fd = fd
        self._may_be_unsent = True
        self._has_ended = False

    def end(self) -> None:
        self._has_ended = True

    def __call__(self, data: bytes) -> None:
        if not isinstance(data, bytes):
            raise TypeError("data")
        if self._has_ended:
            return
        if self._may_be_unsent and self._transport.get_write_buffer_size() == 0:
            self._may_be_unsent = False
        sent = -1
        if not (self._may_be_unsent or self._transport.is_closing()):
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._fd)) as peer:
                sent = peer.send(data, socket.MSG_DONTWAIT)
        if sent < len(data):
            self._may_be_unsent = True
            self._transport.write(memoryview(data)[sent:] if sent > 0 else data)


class Sink:
    def __init__(
        self,
        stream_id: int,
        write: Callable[[bytes], object] | None,
        framing: int,
        prefixes: tuple[bytes | None, ...],
        suffix: bytes,
        heard_at: float,
        max_unsent_bytes: int,
    ) -> None:
        if not 0 <= stream_id < 1 << 32:
            raise OverflowError("stream_id")
        if framing not in (FRAMING_RAW, FRAMING_CHUNKED, FRAMING_WEBSOCKET):
            raise ValueError("framing")
        if len(prefixes) > FIRST_STRUCTURED_KIND:
            raise ValueError("prefixes")
        if not all(isinstance(prefix, bytes | None) for prefix in prefixes):
            raise TypeError("prefix")
        self.stream_id = stream_id
        self.heard_at = heard_at
        self.first_token_at = 0.0
        self.tokens = 0
        self.unsent_bytes = 0
        self.is_overrun = False
        self.is_overrun_told = False
        self.write = write
        self._framing = framing
        self._prefixes = prefixes
        self._suffix = suffix
        self._max_unsent_bytes = max_unsent_bytes
        self._is_paused = False

    @property
    def is_paused(self) -> bool:
        return self._is_paused

    @is_paused.setter
    def is_paused(self, is_paused: bool) -> None:
        self._is_paused = is_paused
        if not is_paused:
            self.unsent_bytes = 0

    def send(self, body: Buffer) -> None:
        if self.write is None:
            raise ValueError("nothing to write to")
        self._put(bytes(borrow(body)))

    def put_token(self, kind: int, payload: bytes) -> bool:
        prefix = dict(enumerate(self._prefixes)).get(kind)
        return prefix is not None and self._put(prefix + payload + self._suffix)

    def count_token(self, now: float) -> None:
        if self.tokens == 0:
            self.first_token_at = now
        self.tokens += 1

    def _put(self, body: bytes) -> bool:
        if self.is_overrun or not body:
            return False
        if self._framing == FRAMING_CHUNKED:
            body = f"{len(body):x}\r\n".encode() + body + b"\r\n"
        elif self._framing == FRAMING_WEBSOCKET:
            body = encode_frame(TEXT, body)
        if self._is_paused:
            if self.unsent_bytes + len(body) > self._max_unsent_bytes:
                self.is_overrun = True
                return False
            self.unsent_bytes += len(body)
        assert self.write is not None
        self.write(body)
        return True


class Relay:
    def __init__(self) -> None:
        self._sinks: dict[int, Sink] = {}
        self.tokens = 0
        self.heard_at = 0.0

    def __len__(self) -> int:
        return len(self._sinks)

    def open(self, sink: Sink) -> None:
        if sink.stream_id in self._sinks:
            raise ValueError("open already")
        self._sinks[sink.stream_id] = sink

    def close(self, stream_id: int) -> bool:
        return self._sinks.pop(stream_id, None) is not None

    def feed(self, message: Buffer, now: float) -> list[tuple[int, int, int, bytes]]:
        events = []
        frames = split_run(bytes(borrow(message)))
        self.heard_at = now
        for stream_id, kind, flags, payload in frames:
            sink = self._sinks.get(stream_id)
            if sink is None:
                continue
            sink.heard_at = now
            if kind >= FIRST_STRUCTURED_KIND:
                events.append((stream_id, kind, flags, payload))
            elif sink.write is None:
                sink.count_token(now)
                self.tokens += 1
                events.append((stream_id, kind, flags, payload))
            else:
                reason = b""
                try:
                    if sink.put_token(kind, payload):
                        sink.count_token(now)
                        self.tokens += 1
                except Exception as error:
                    sink.is_overrun = True
                    reason = repr(error).encode()
                if sink.is_overrun and not sink.is_overrun_told:
                    sink.is_overrun_told = True
                    events.append((stream_id, OVERRUN, 0, reason))
        return events


OnEvents = Callable[[list[tuple[int, int, int, bytes]]], object]


class FrameReader:
    def __init__(self, buffer: memoryview, clock: Callable[[], float]) -> None:
        self._buffer = buffer
        self._clock = clock
        self._relay: Relay | None = None
        self.begins_frame = True

    @property
    def relayed_at(self) -> float:
        return 0.0 if self._relay is None else self._relay.heard_at

    def relay_to(self, relay: Relay, max_payload_bytes: int, on_events: OnEvents) -> None:
        self._relay = relay
        self._max_payload_bytes = max_payload_bytes
        self._on_events = on_events

    def end_relaying(self) -> None:
        self._relay = None

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if not 0 <= nbytes <= len(self._buffer):
            raise ValueError("nbytes")
        rest = self._buffer[:nbytes]
        is_relayed = self.begins_frame and self._relay is not None
        now = self._clock() if is_relayed else 0.0
        try:
            while (
                is_relayed
                and (relay := self._relay) is not None
                and (message := self._next_message(rest)) is not None
            ):
                on_events = self._on_events
                start, end = message
                if events := relay.feed(rest[start:end], now):
                    on_events(events)
                rest = rest[end:]
        except Exception as error:
            self.end_relaying()
            self.on_failure(error)
            return
        if rest or not is_relayed:
            self.on_rest(rest)

    def on_rest(self, data: memoryview) -> None:
        raise NotImplementedError

    def on_failure(self, error: Exception) -> None:
        raise NotImplementedError

    def _next_message(self, data: memoryview) -> tuple[int, int] | None:
        try:
            header = parse_frame_header(
                data, 0, expect_masked=True, max_payload_bytes=self._max_payload_bytes
            )
        except RemoteProtocolError:
            return None
        if header is None:
            return None
        opcode, fin, start, payload_bytes, key = header
        end = start + payload_bytes
        if opcode != 2 or not fin or end > len(data):
            return None
        apply_mask(data[start:end], key)
        return start, end


def split_run(message: bytes) -> list[tuple[int, int, int, bytes]]:
    frames = []
    while message:
        if len(message) < FRAME_HEADER_BYTES:
            raise refuse("no whole header")
        stream_id, kind, flags, reserved, payload_bytes = HEADER.unpack_from(message)
        end = FRAME_HEADER_BYTES + payload_bytes
        if kind == OVERRUN or reserved or len(message) < end:
            raise refuse("reserved, or no whole payload")
        frames.append((stream_id, kind, flags, message[FRAME_HEADER_BYTES:end]))
        message = message[end:]
    return frames


# --- 5. Candidates ---------------------------------------------------------------------------

CANDIDATE = struct.Struct("<iff")


def likeliest(logits: Buffer, most: int, candidates: bytearray | memoryview) -> int:
    numbers = borrow(logits).cast("f")
    count = min(most, len(numbers))
    room = memoryview(candidates).cast("B")
    if most < 1 or len(room) < count * CANDIDATE.size:
        raise ValueError("most, or room")
    known = [-math.inf if math.isnan(number) else number for number in numbers]
    order = sorted(range(len(known)), key=lambda token: (-known[token], token))
    for at, token in enumerate(order[:count]):
        CANDIDATE.pack_into(room, at * CANDIDATE.size, token, known[token], 0.0)
    return count


class SeenTokens:
    def __init__(self, vocabulary: int, window: int) -> None:
        if not 0 < vocabulary < 1 << 31 or window < 1:
            raise ValueError("vocabulary or window")
        self._vocabulary = vocabulary
        self._window: deque[int] = deque(maxlen=window)
        self._before: dict[int, float] = {}

    def accept(self, token: int) -> None:
        if not -(1 << 31) <= token < 1 << 31:
            raise OverflowError("token")
        if not 0 <= token < self._vocabulary:
            raise IndexError("token")
        self._refuse_twice()
        self._window.append(token)

    def penalize(self, logits: Buffer, repeat: float, frequency: float, presence: float) -> None:
        numbers = self._numbers(logits)
        self._refuse_twice()
        for token, count in Counter(self._window).items():
            logit = self._before[token] = numbers[token]
            logit = single(logit * single(repeat) if logit <= 0 else logit / single(repeat))
            penalty = single(single(count * single(frequency)) + single(presence))
            numbers[token] = single(logit - penalty)

    def restore(self, logits: Buffer) -> None:
        numbers = self._numbers(logits)
        for token, logit in self._before.items():
            numbers[token] = logit
        self._before.clear()

    def _numbers(self, logits: Buffer) -> "memoryview[float]":
        view = memoryview(logits)
        if view.readonly:
            raise BufferError("read-only")
        numbers = borrow(view)
        if len(numbers) != 4 * self._vocabulary:
            raise ValueError("logits")
        return numbers.cast("f")

    def _refuse_twice(self) -> None:
        if self._before:
            raise RuntimeError("not restored")


def single(number: float) -> float:
    """As a float32 holds it; infinite beyond."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", number))[0])
    except OverflowError:
        return math.copysign(math.inf, number)
