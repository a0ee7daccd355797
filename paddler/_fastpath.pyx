"""Compiled hot path: HTTP heads, WebSocket frames, slots, the token relay, candidates.

Mechanism only: no policy, no clock, no configuration, and of sockets only the one that a writer
is given. Each section has two layers: leaves that work on raw pointers without the interpreter,
and thin functions that borrow the caller's buffer for the length of one call, check, convert
and raise. Buffers are taken as plain ``Py_buffer`` views, 40 ns sooner than a typed memoryview
is set up. The plain twin that this module must agree with is ``tests/fastpath_twin.py``.
"""

from cpython.buffer cimport (
    PyBUF_SIMPLE,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Realloc
from cpython.unicode cimport (
    PyUnicode_1BYTE_DATA,
    PyUnicode_DecodeASCII,
    PyUnicode_DecodeLatin1,
    PyUnicode_New,
)
from libc.math cimport INFINITY
from libc.stdint cimport (
    INT16_MAX,
    INT32_MAX,
    int16_t,
    int32_t,
    int64_t,
    uint8_t,
    uint32_t,
    uint64_t,
)
from libc.string cimport memchr, memcpy
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap

from paddler.errors import RemoteProtocolError


# --- 1. HTTP heads ---------------------------------------------------------------------------

cpdef enum:
    MAX_REQUEST_LINE_BYTES = 8192  # as Apache's LimitRequestLine; RFC 9112 §3 asks for 8000
    MAX_FIELDS = 100  # as Apache's LimitRequestFields

# What a byte may be part of; one bit per grammar rule.
cdef enum:
    TOKEN = 1  # RFC 9110 §5.6.2
    TARGET = 2  # visible ASCII; the target's own grammar is its reader's business
    VALUE = 4  # RFC 9110 §5.5, obs-text included
    LINE_BREAKER = 8  # what a search for the end of a head must look at

cdef uint8_t CLASSES[256]
cdef uint8_t LOWER[256]

cdef void fill_tables():
    cdef int byte
    for byte in range(256):
        CLASSES[byte] = 0
        LOWER[byte] = byte + 32 if c"A" <= byte <= c"Z" else byte
        if chr(byte).isalnum() and byte < 128 or byte in b"!#$%&'*+-.^_`|~":
            CLASSES[byte] |= TOKEN
        if 0x21 <= byte <= 0x7E:
            CLASSES[byte] |= TARGET
        if byte == c"\t" or byte >= 0x20 and byte != 0x7F:
            CLASSES[byte] |= VALUE
        if byte in b"\0\r\n":
            CLASSES[byte] |= LINE_BREAKER

fill_tables()

cdef enum HeadFault:
    SOUND
    UNFINISHED
    TRAILING
    NUL
    BARE_CR
    BARE_LF
    LINE_TOO_LONG
    NO_METHOD
    BAD_METHOD
    NO_TARGET
    BAD_TARGET
    NO_VERSION
    BAD_VERSION
    UNKNOWN_VERSION
    TOO_MANY_FIELDS
    FOLDED
    EMPTY_NAME
    BAD_NAME
    SPACE_BEFORE_COLON
    NO_COLON
    BAD_VALUE

# fault: (status to answer with, what was seen). RFC 9112 §2.2, §3, §5.1, §5.2; RFC 6585 §5.
cdef dict HEAD_FAULTS = {
    UNFINISHED: (400, "the head stops before its blank line"),
    TRAILING: (400, "bytes after the blank line that ends the head"),
    NUL: (400, "a NUL byte in the head"),
    BARE_CR: (400, "a CR without LF in the head; lines end with CRLF"),
    BARE_LF: (400, "a LF without CR in the head; lines end with CRLF"),
    LINE_TOO_LONG: (414, f"a request line of more than {MAX_REQUEST_LINE_BYTES} bytes"),
    NO_METHOD: (400, "a request line that does not begin with a method"),
    BAD_METHOD: (400, "a byte that is not allowed in a request method"),
    NO_TARGET: (400, "a request line without a target after its method and one space"),
    BAD_TARGET: (400, "a byte that is not allowed in a request target"),
    NO_VERSION: (400, "a request line without an HTTP version"),
    BAD_VERSION: (400, "a malformed HTTP version; HTTP/1.1 and HTTP/1.0 are understood"),
    UNKNOWN_VERSION: (505, "an HTTP version other than HTTP/1.1 and HTTP/1.0"),
    TOO_MANY_FIELDS: (431, f"more than {MAX_FIELDS} header fields"),
    FOLDED: (400, "a header line that begins with white space (obsolete line folding)"),
    EMPTY_NAME: (400, "a header field without a name"),
    BAD_NAME: (400, "a byte that is not allowed in the name of a header field"),
    SPACE_BEFORE_COLON: (400, "space before the colon of a header field"),
    NO_COLON: (400, "a header line without a colon"),
    BAD_VALUE: (400, "a byte that is not allowed in the value of a header field"),
}

cdef struct Field:
    Py_ssize_t name
    Py_ssize_t name_end
    Py_ssize_t value
    Py_ssize_t value_end

cdef struct RequestLine:
    Py_ssize_t method_end
    Py_ssize_t target
    Py_ssize_t target_end
    int minor_version


cdef inline Py_ssize_t skip(
    const uint8_t* data, Py_ssize_t at, Py_ssize_t size, uint8_t wanted
) noexcept nogil:
    while at < size and CLASSES[data[at]] & wanted:
        at += 1
    return at


cdef inline bint is_blank(uint8_t byte) noexcept nogil:
    return byte == c" " or byte == c"\t"


cdef inline bint is_crlf(const uint8_t* data, Py_ssize_t at, Py_ssize_t size) noexcept nogil:
    return at + 1 < size and data[at] == c"\r" and data[at + 1] == c"\n"


cdef HeadFault find_head_end(
    const uint8_t* data, Py_ssize_t size, Py_ssize_t* at, Py_ssize_t* end
) noexcept nogil:
    """Sets ``end`` (-1: not there yet), and ``at`` to the byte that is at fault."""
    cdef Py_ssize_t i = at[0]
    cdef Py_ssize_t line = -1  # where the line being read begins; -1: before this search
    end[0] = -1
    if i > 0 and data[i - 1] == c"\r":
        i -= 1
    while True:
        while i < size and not CLASSES[data[i]] & LINE_BREAKER:
            i += 1
        at[0] = i
        if i == size:
            return SOUND
        if data[i] == 0:
            return NUL
        if data[i] == c"\n":
            return BARE_LF
        if i + 1 == size:
            return SOUND
        if data[i + 1] != c"\n":
            return BARE_CR
        if i == line:
            end[0] = i + 2
            return SOUND
        i += 2
        line = i


cdef HeadFault scan_request_line(
    const uint8_t* data, Py_ssize_t size, Py_ssize_t* at, RequestLine* line
) noexcept nogil:
    """Moves ``at`` past the line, or to the byte that is at fault. RFC 9112 §3."""
    cdef const uint8_t* cr = <const uint8_t*> memchr(data, c"\r", size)
    cdef Py_ssize_t end = size if cr == NULL else cr - data
    cdef const uint8_t* version
    if end > MAX_REQUEST_LINE_BYTES:
        return LINE_TOO_LONG
    line.method_end = skip(data, 0, end, TOKEN)
    at[0] = line.method_end
    if at[0] == 0:
        return NO_METHOD
    if at[0] == end:
        return NO_TARGET
    if data[at[0]] != c" ":
        return BAD_METHOD
    line.target = line.method_end + 1
    line.target_end = skip(data, line.target, end, TARGET)
    at[0] = line.target_end
    if at[0] == line.target and (at[0] == end or data[at[0]] == c" "):
        return NO_TARGET
    if at[0] == end:
        return NO_VERSION
    if data[at[0]] != c" ":
        return BAD_TARGET
    at[0] += 1
    version = data + at[0]
    if (
        end - at[0] != 8
        or version[0] != c"H" or version[1] != c"T" or version[2] != c"T" or version[3] != c"P"
        or version[4] != c"/" or not c"0" <= version[5] <= c"9"
        or version[6] != c"." or not c"0" <= version[7] <= c"9"
    ):
        return BAD_VERSION
    if version[5] != c"1" or version[7] > c"1":
        return UNKNOWN_VERSION
    line.minor_version = version[7] - c"0"
    at[0] = end
    if not is_crlf(data, end, size):
        return UNFINISHED if end + 1 >= size else BARE_CR
    at[0] = end + 2
    return SOUND


cdef HeadFault scan_fields(
    const uint8_t* data, Py_ssize_t size, Py_ssize_t* at, Field* fields, int* count
) noexcept nogil:
    """Field lines from ``at`` up to the blank line that must end ``data``. RFC 9112 §5."""
    cdef Field* field
    cdef Py_ssize_t i
    count[0] = 0
    while not is_crlf(data, at[0], size):
        if at[0] == size:
            return UNFINISHED
        if count[0] == MAX_FIELDS:
            return TOO_MANY_FIELDS
        if is_blank(data[at[0]]):
            return FOLDED
        field = &fields[count[0]]
        field.name = at[0]
        field.name_end = skip(data, at[0], size, TOKEN)
        at[0] = field.name_end
        if at[0] == size:
            return UNFINISHED
        if is_blank(data[at[0]]):
            return SPACE_BEFORE_COLON
        if is_crlf(data, at[0], size):
            return NO_COLON
        if data[at[0]] != c":":
            return BAD_NAME
        if field.name == field.name_end:
            return EMPTY_NAME
        i = at[0] + 1
        while i < size and is_blank(data[i]):
            i += 1
        field.value = i
        i = skip(data, i, size, VALUE)
        at[0] = i
        if not is_crlf(data, i, size):
            return UNFINISHED if i == size else BAD_VALUE
        while i > field.value and is_blank(data[i - 1]):
            i -= 1
        field.value_end = i
        at[0] += 2
        count[0] += 1
    at[0] += 2
    return SOUND if at[0] == size else TRAILING


cdef object head_error(HeadFault fault, Py_ssize_t at):
    status, seen = HEAD_FAULTS[fault]
    return RemoteProtocolError(f"{seen} (at byte {at})", status=status)


cdef list field_list(const uint8_t* data, const Field* fields, int count):
    cdef list pairs = []
    cdef const Field* field
    cdef Py_ssize_t i, name_bytes
    cdef uint8_t* lowered
    for index in range(count):
        field = &fields[index]
        name_bytes = field.name_end - field.name
        name = PyUnicode_New(name_bytes, 127)
        lowered = <uint8_t*> PyUnicode_1BYTE_DATA(name)
        for i in range(name_bytes):
            lowered[i] = LOWER[data[field.name + i]]
        pairs.append((
            name,
            PyUnicode_DecodeLatin1(
                <char*> data + field.value, field.value_end - field.value, NULL
            ),
        ))
    return pairs


def head_end(data, Py_ssize_t start=0) -> int:
    """Offset just past the blank line that ends an HTTP head, or -1 if it has not come.

    ``start``: where an earlier call left off, ``max(0, bytes seen - 3)``, so a byte is
    looked at once: O(n) over all calls. Raises RemoteProtocolError for the first bare LF,
    bare CR or NUL on the way; a CR that ends ``data`` may still get its LF. RFC 9112 §2.2.
    """
    cdef Py_buffer view
    cdef Py_ssize_t at = start
    cdef Py_ssize_t end
    cdef HeadFault fault
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if not 0 <= start <= view.len:
            raise ValueError(f"start {start} is outside of the {view.len} bytes of data")
        fault = find_head_end(<const uint8_t*> view.buf, view.len, &at, &end)
    finally:
        PyBuffer_Release(&view)
    if fault != SOUND:
        raise head_error(fault, at)
    return end


def parse_request_head(data) -> tuple[str, str, int, list[tuple[str, str]]]:
    """Method, target, minor version and fields of exactly one request head.

    ``data`` goes from the request line to the blank line, both included. Names come out in
    lower case, values without the blanks around them, as latin-1; the order is kept and
    nothing is merged. Anything but the strict grammar of RFC 9112 is a RemoteProtocolError.
    """
    cdef Py_buffer view
    cdef Field fields[MAX_FIELDS]
    cdef RequestLine line = RequestLine(0, 0, 0, 0)
    cdef const uint8_t* head
    cdef Py_ssize_t at = 0
    cdef int count = 0
    cdef HeadFault fault
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        head = <const uint8_t*> view.buf
        fault = scan_request_line(head, view.len, &at, &line)
        if fault == SOUND:
            fault = scan_fields(head, view.len, &at, fields, &count)
        if fault != SOUND:
            raise head_error(fault, at)
        method = PyUnicode_DecodeASCII(<char*> head, line.method_end, NULL)
        target = PyUnicode_DecodeASCII(
            <char*> head + line.target, line.target_end - line.target, NULL
        )
        pairs = field_list(head, fields, count)
    finally:
        PyBuffer_Release(&view)
    return method, target, line.minor_version, pairs


def parse_fields(data) -> list[tuple[str, str]]:
    """Fields of a response head after its status line, or of a chunked body's trailer.

    ``data``: any number of field lines, then the blank line. Rules and errors are those of
    parse_request_head().
    """
    cdef Py_buffer view
    cdef Field fields[MAX_FIELDS]
    cdef Py_ssize_t at = 0
    cdef int count = 0
    cdef HeadFault fault
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        fault = scan_fields(<const uint8_t*> view.buf, view.len, &at, fields, &count)
        if fault != SOUND:
            raise head_error(fault, at)
        pairs = field_list(<const uint8_t*> view.buf, fields, count)
    finally:
        PyBuffer_Release(&view)
    return pairs


# --- 2. WebSocket frames ---------------------------------------------------------------------

# RFC 6455 §5.2.
cdef enum:
    FIN = 0x80
    RSV = 0x70
    OPCODE = 0x0F
    MASKED = 0x80
    SHORT_LENGTH = 0x7F

cdef enum:
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PONG = 10
    CONTROL_PAYLOAD_LIMIT = 125
    LONGEST_FRAME_HEADER = 14

cdef enum FrameFault:
    FRAME_SOUND
    FRAME_UNFINISHED
    RSV_SET
    RESERVED_OPCODE
    CONTROL_FRAGMENTED
    CONTROL_TOO_LONG
    NOT_MASKED
    NOT_EXPECTED_MASKED
    LENGTH_NOT_MINIMAL
    LENGTH_TOP_BIT

cdef dict FRAME_FAULTS = {
    RSV_SET: "a reserved bit is set in a frame, and no extension was agreed on",
    RESERVED_OPCODE: "a frame with a reserved opcode",
    CONTROL_FRAGMENTED: "a control frame in fragments",
    CONTROL_TOO_LONG: f"a control frame of more than {CONTROL_PAYLOAD_LIMIT} bytes",
    NOT_MASKED: "a frame that is not masked; a client masks all of its frames",
    NOT_EXPECTED_MASKED: "a masked frame; a server masks none of its frames",
    LENGTH_NOT_MINIMAL: "a frame whose length is not written in the shortest way",
    LENGTH_TOP_BIT: "a frame length of 2^63 bytes or more",
}

cdef struct FrameHeader:
    int opcode
    bint is_final
    int header_bytes
    uint64_t payload_bytes
    uint32_t mask_key


cdef inline bint is_known_opcode(int opcode) noexcept nogil:
    return 0 <= opcode <= BINARY or CLOSE <= opcode <= PONG


cdef FrameFault scan_frame_header(
    const uint8_t* data, Py_ssize_t size, bint expect_masked, uint64_t limit, FrameHeader* header
) noexcept nogil:
    """Each rule is applied as soon as the field that it is about is whole.

    A payload beyond ``limit`` ends the scan: ``header_bytes`` is 0 then, ``payload_bytes`` set.
    """
    cdef int length_bytes, i
    if size < 1:
        return FRAME_UNFINISHED
    header.opcode = data[0] & OPCODE
    header.is_final = data[0] & FIN != 0
    header.header_bytes = 0
    header.mask_key = 0
    if data[0] & RSV:
        return RSV_SET
    if not is_known_opcode(header.opcode):
        return RESERVED_OPCODE
    if header.opcode >= CLOSE and not header.is_final:
        return CONTROL_FRAGMENTED
    if size < 2:
        return FRAME_UNFINISHED
    if (data[1] & MASKED != 0) != expect_masked:
        return NOT_MASKED if expect_masked else NOT_EXPECTED_MASKED
    header.payload_bytes = data[1] & SHORT_LENGTH
    if header.opcode >= CLOSE and header.payload_bytes > CONTROL_PAYLOAD_LIMIT:
        return CONTROL_TOO_LONG
    length_bytes = 0
    if header.payload_bytes > 125:
        length_bytes = 2 if header.payload_bytes == 126 else 8
        if size < 2 + length_bytes:
            return FRAME_UNFINISHED
        header.payload_bytes = 0
        for i in range(length_bytes):
            header.payload_bytes = header.payload_bytes << 8 | data[2 + i]
        if header.payload_bytes >> 63:
            return LENGTH_TOP_BIT
        if header.payload_bytes <= (125 if length_bytes == 2 else 0xFFFF):
            return LENGTH_NOT_MINIMAL
    if header.payload_bytes > limit:
        return FRAME_SOUND
    if size < 2 + length_bytes + 4 * expect_masked:
        return FRAME_UNFINISHED
    if expect_masked:
        for i in range(4):
            header.mask_key |= <uint32_t> data[2 + length_bytes + i] << 8 * i
    header.header_bytes = 2 + length_bytes + 4 * expect_masked
    return FRAME_SOUND


cdef inline void mask_bytes(
    uint8_t* target, const uint8_t* source, Py_ssize_t size, uint32_t key, int phase
) noexcept nogil:
    """``source`` XOR the key, eight bytes at a time; ``target`` may be ``source``."""
    cdef uint8_t key_bytes[8]
    cdef uint64_t key_word, word
    cdef Py_ssize_t i
    for i in range(8):
        key_bytes[i] = <uint8_t> (key >> 8 * ((i + phase) & 3))
    memcpy(&key_word, key_bytes, 8)
    for i in range(size // 8):
        memcpy(&word, source + 8 * i, 8)
        word ^= key_word
        memcpy(target + 8 * i, &word, 8)
    for i in range(size & ~<Py_ssize_t> 7, size):
        target[i] = source[i] ^ key_bytes[i & 7]


cdef int write_frame_header(
    uint8_t* out, int opcode, bint fin, uint64_t payload_bytes, bint is_masked, uint32_t key
) noexcept nogil:
    """Writes at most ``LONGEST_FRAME_HEADER`` bytes, and says how many."""
    cdef int length_bytes = 0 if payload_bytes <= 125 else 2 if payload_bytes <= 0xFFFF else 8
    cdef int i
    cdef uint8_t short_length
    if length_bytes == 0:
        short_length = <uint8_t> payload_bytes
    else:
        short_length = 126 if length_bytes == 2 else 127
    out[0] = <uint8_t> (opcode | (FIN if fin else 0))
    out[1] = short_length | (MASKED if is_masked else 0)
    for i in range(length_bytes):
        out[2 + i] = <uint8_t> (payload_bytes >> 8 * (length_bytes - 1 - i))
    if not is_masked:
        return 2 + length_bytes
    for i in range(4):
        out[2 + length_bytes + i] = <uint8_t> (key >> 8 * i)
    return 6 + length_bytes


def parse_frame_header(data, Py_ssize_t start, *, bint expect_masked, int64_t max_payload_bytes):
    """Opcode, fin, payload start, payload bytes and mask key of the frame at ``start``.

    ``None``: the header is not whole yet. The payload start is an offset into ``data``; the
    payload itself need not be there. The mask key is the number that apply_mask() takes, 0
    without a mask. Raises RemoteProtocolError with close code 1002 for what RFC 6455 §5
    forbids, 1009 for a payload beyond ``max_payload_bytes``, each as soon as it shows.
    """
    cdef Py_buffer view
    cdef FrameHeader header
    cdef FrameFault fault
    if max_payload_bytes < 0:
        raise ValueError(f"max_payload_bytes is {max_payload_bytes}; it may not be negative")
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if not 0 <= start <= view.len:
            raise ValueError(f"start {start} is outside of the {view.len} bytes of data")
        fault = scan_frame_header(
            <const uint8_t*> view.buf + start,
            view.len - start,
            expect_masked,
            <uint64_t> max_payload_bytes,
            &header,
        )
    finally:
        PyBuffer_Release(&view)
    if fault == FRAME_UNFINISHED:
        return None
    if fault != FRAME_SOUND:
        raise RemoteProtocolError(FRAME_FAULTS[fault], close_code=1002)
    if header.header_bytes == 0:
        raise RemoteProtocolError(
            f"Message exceeded the maximum allowed frame size of {max_payload_bytes} bytes",
            close_code=1009,
        )
    return (
        header.opcode,
        header.is_final,
        start + header.header_bytes,
        header.payload_bytes,
        header.mask_key,
    )


def apply_mask(data, uint32_t key, Py_ssize_t phase=0) -> None:
    """Mask or unmask a writable buffer in place. RFC 6455 §5.3.

    ``phase``: how far into the frame's payload the first byte lies; only its remainder by
    four matters. BufferError when ``data`` is read-only or not contiguous.
    """
    cdef Py_buffer view
    cdef uint8_t* payload
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
    payload = <uint8_t*> view.buf
    mask_bytes(payload, payload, view.len, key, phase & 3)
    PyBuffer_Release(&view)


cdef bint is_whole_message(
    const uint8_t* start,
    Py_ssize_t size,
    bint expect_masked,
    uint64_t max_payload_bytes,
    FrameHeader* header,
) noexcept nogil:
    """Whether a text or binary message that is one frame stands there, all of it."""
    return (
        scan_frame_header(start, size, expect_masked, max_payload_bytes, header) == FRAME_SOUND
        and header.header_bytes != 0
        and TEXT <= header.opcode <= BINARY
        and header.is_final
        and header.payload_bytes <= <uint64_t> (size - header.header_bytes)
    )


def unmask_messages(data, *, bint expect_masked, int64_t max_payload_bytes):
    """The messages that ``data`` begins with, as far as each is one whole frame.

    ``(opcode, start, end)`` of each payload, unmasked in place, and the offset behind the last
    of them. Ends before anything else: a control frame, a fragment, what is not whole yet,
    and what parse_frame_header() refuses. BufferError for masked ``data`` that is read-only.
    """
    cdef Py_buffer view
    cdef FrameHeader header
    cdef uint8_t* start
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t after
    cdef list messages = []
    if max_payload_bytes < 0:
        raise ValueError(f"max_payload_bytes is {max_payload_bytes}; it may not be negative")
    PyObject_GetBuffer(data, &view, PyBUF_WRITABLE if expect_masked else PyBUF_SIMPLE)
    try:
        while True:
            start = <uint8_t*> view.buf + at
            if not is_whole_message(
                start, view.len - at, expect_masked, <uint64_t> max_payload_bytes, &header
            ):
                break
            start += header.header_bytes
            after = at + header.header_bytes + <Py_ssize_t> header.payload_bytes
            if expect_masked:
                mask_bytes(start, start, header.payload_bytes, header.mask_key, 0)
            messages.append((header.opcode, at + header.header_bytes, after))
            at = after
    finally:
        PyBuffer_Release(&view)
    return messages, at


def encode_frame(int opcode, payload, mask_key=-1, bint fin=True) -> bytes:
    """One whole frame. ``mask_key``: -1 for none, or the key as apply_mask() takes it.

    ValueError for an opcode that RFC 6455 reserves, and for a control frame that is
    fragmented or longer than 125 bytes. OverflowError for a key beyond 32 bits.
    """
    cdef Py_buffer view
    cdef uint8_t header[LONGEST_FRAME_HEADER]
    cdef bint is_masked = mask_key != -1
    cdef uint32_t key = mask_key if is_masked else 0
    cdef int header_bytes
    cdef uint8_t* out
    if not is_known_opcode(opcode):
        raise ValueError(f"opcode {opcode} is reserved; 0 to 2 and 8 to 10 may be sent")
    if opcode >= CLOSE and not fin:
        raise ValueError("a control frame may not be sent in fragments")
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        if opcode >= CLOSE and view.len > CONTROL_PAYLOAD_LIMIT:
            raise ValueError(
                f"a control frame of {view.len} bytes; {CONTROL_PAYLOAD_LIMIT} are allowed"
            )
        header_bytes = write_frame_header(header, opcode, fin, view.len, is_masked, key)
        frame = PyBytes_FromStringAndSize(NULL, header_bytes + view.len)
        out = <uint8_t*> PyBytes_AS_STRING(frame)
        memcpy(out, header, header_bytes)
        if is_masked:
            mask_bytes(out + header_bytes, <const uint8_t*> view.buf, view.len, key, 0)
        else:
            memcpy(out + header_bytes, view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
    return frame


# --- 3. Slots --------------------------------------------------------------------------------

cdef extern from *:
    """
    #include <stdint.h>

    static inline int paddler_swap(int16_t *cell, int16_t seen, int16_t wanted) {
        return __atomic_compare_exchange_n(
            cell, &seen, wanted, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    }
    static inline void paddler_decrement(int16_t *cell) {
        __atomic_fetch_sub(cell, 1, __ATOMIC_RELEASE);
    }
    static inline int16_t paddler_load(const int16_t *cell) {
        return __atomic_load_n(cell, __ATOMIC_ACQUIRE);
    }
    static inline void paddler_store(int16_t *cell, int16_t value) {
        __atomic_store_n(cell, value, __ATOMIC_RELEASE);
    }
    static inline uint32_t paddler_load_generation(const uint32_t *cell) {
        return __atomic_load_n(cell, __ATOMIC_ACQUIRE);
    }
    static inline void paddler_next_generation(uint32_t *cell) {
        __atomic_fetch_add(cell, 1, __ATOMIC_ACQ_REL);
    }
    """
    bint swap "paddler_swap"(int16_t* cell, int16_t seen, int16_t wanted) noexcept nogil
    void decrement "paddler_decrement"(int16_t* cell) noexcept nogil
    int16_t load "paddler_load"(const int16_t* cell) noexcept nogil
    void store "paddler_store"(int16_t* cell, int16_t value) noexcept nogil
    uint32_t load_generation "paddler_load_generation"(const uint32_t* cell) noexcept nogil
    void next_generation "paddler_next_generation"(uint32_t* cell) noexcept nogil

cdef enum:
    BLOCK_ROWS = 256  # long enough for vectors, short enough to look through one by one
    FIRST_LEASES = 1024
    CACHE_LINE = 64  # the count of used rows shares none with the rows
    MOST_ROWS = 1 << 24  # far beyond any use; a row's index fits an int32
    NOT_LIVE = -1
    LAST_GENERATION = 0x7FFFFFFF  # so that a lease is a positive int64

cdef struct Lease:
    uint32_t generation  # counts the uses of this entry; part of the lease's id
    uint32_t row_generation
    int32_t row  # NOT_LIVE while the entry is free
    uint32_t next_free


cdef inline int16_t least_busy(
    const int16_t* busy, const int16_t* limit, Py_ssize_t count
) noexcept nogil:
    """The smallest busy count below its limit, INT16_MAX if there is none.

    Neither branches nor leaves early, and says "or" where "if" would be plainer: so GCC
    makes vector instructions of it, eight rows at a time on any x86-64.
    """
    cdef int16_t least = INT16_MAX
    cdef int16_t candidate
    cdef Py_ssize_t i
    for i in range(count):
        candidate = busy[i] | (-<int16_t> (busy[i] >= limit[i]) & INT16_MAX)
        least = candidate if candidate < least else least
    return least


cdef Py_ssize_t choose_row(
    const int16_t* busy, const int16_t* limit, Py_ssize_t used, Py_ssize_t cursor, int16_t* seen
) noexcept nogil:
    """The least busy row with a free slot, the first from ``cursor`` on in rotation; or -1.

    One pass over blocks, in rotation order: the first block with the smallest minimum holds
    the row, and a row without any work ends the search. The cells are read as they are while
    other processes may change them: the caller's swap of ``seen`` decides.
    """
    cdef Py_ssize_t best = -1
    cdef Py_ssize_t best_rows = 0
    cdef Py_ssize_t part, at, stop, rows
    cdef int16_t least
    seen[0] = INT16_MAX
    for part in range(2):
        at = cursor if part == 0 else 0
        stop = used if part == 0 else cursor
        while at < stop and seen[0] > 0:
            rows = min(stop - at, <Py_ssize_t> BLOCK_ROWS)
            least = least_busy(busy + at, limit + at, rows)
            if least < seen[0]:
                seen[0] = least
                best = at
                best_rows = rows
            at += rows
    for at in range(best, best + best_rows):
        if busy[at] == seen[0] and busy[at] < limit[at]:
            return at
    return -1


cdef int64_t total(const int16_t* cells, Py_ssize_t count) noexcept nogil:
    cdef int64_t sum_of_cells = 0
    cdef Py_ssize_t i
    for i in range(count):
        sum_of_cells += cells[i]
    return sum_of_cells


cdef int check_limit(int64_t limit) except -1:
    if not 0 <= limit <= INT16_MAX:
        raise ValueError(f"a row of {limit} slots; 0 to {INT16_MAX} are possible")
    return 0


cdef class SlotTable:
    """How many slots of each row are busy, and who holds them.

    ``busy``, ``limit`` and ``generation`` are flat arrays in one anonymous shared mapping,
    changed atomically, so that processes forked from this one see and claim the same slots.
    A row's generation is odd while it is live, and moves on when the row is removed, which
    voids its leases. The lease array belongs to the process alone; it only ever grows.
    """

    cdef Py_ssize_t capacity
    cdef size_t mapped_bytes
    cdef uint32_t* used_rows  # rows from here on were never live and are not looked at
    cdef uint32_t* generations
    cdef int16_t* busy_slots
    cdef int16_t* slot_limits
    cdef Py_ssize_t cursor  # where the next search begins: after the row chosen last
    cdef Lease* leases
    cdef uint32_t lease_room
    cdef uint32_t first_free  # == lease_room: none

    def __cinit__(self, Py_ssize_t capacity=16384):
        cdef char* memory
        if not 0 < capacity <= MOST_ROWS:
            raise ValueError(f"capacity is {capacity}; 1 to {MOST_ROWS} rows are possible")
        self.capacity = capacity
        self.mapped_bytes = CACHE_LINE + capacity * (sizeof(uint32_t) + 2 * sizeof(int16_t))
        memory = <char*> mmap(
            NULL, self.mapped_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0
        )
        if memory == <char*> MAP_FAILED:  # the machine is out of memory
            raise MemoryError(f"no {self.mapped_bytes} bytes for slots")  # pragma: no cover
        self.used_rows = <uint32_t*> memory
        self.generations = <uint32_t*> (memory + CACHE_LINE)
        self.busy_slots = <int16_t*> (self.generations + capacity)
        self.slot_limits = self.busy_slots + capacity

    def __dealloc__(self):
        if self.used_rows != NULL:
            munmap(self.used_rows, self.mapped_bytes)
        PyMem_Free(self.leases)

    cdef int check_row(self, Py_ssize_t row) except -1:
        if not (0 <= row < self.used_rows[0] and self.generations[row] & 1):
            raise IndexError(f"row {row} is not in the table")
        return 0

    cdef int grow_leases(self) except -1:
        cdef uint32_t room = max(2 * self.lease_room, <uint32_t> FIRST_LEASES)
        cdef Lease* leases = <Lease*> PyMem_Realloc(self.leases, room * sizeof(Lease))
        if leases == NULL:  # the machine is out of memory
            raise MemoryError(f"no memory for {room} leases")  # pragma: no cover
        for index in range(self.lease_room, room):
            leases[index] = Lease(
                generation=0, row_generation=0, row=NOT_LIVE, next_free=index + 1
            )
        self.leases = leases
        self.first_free = self.lease_room
        self.lease_room = room
        return 0

    cdef Lease* find(self, int64_t lease) noexcept:
        """The entry of a lease that was not given back; its row may be gone. Or NULL."""
        cdef uint32_t index = lease & 0xFFFFFFFF
        cdef Lease* entry
        if lease < 0 or index >= self.lease_room:
            return NULL
        entry = &self.leases[index]
        return entry if entry.row != NOT_LIVE and entry.generation == lease >> 32 else NULL

    @property
    def rows(self) -> int:
        """How many rows are live. Like the totals, a sum over all rows: O(rows)."""
        cdef Py_ssize_t row
        cdef int64_t live = 0
        for row in range(self.used_rows[0]):
            live += self.generations[row] & 1
        return live

    @property
    def busy_total(self) -> int:
        """Busy slots of all rows."""
        return total(self.busy_slots, self.used_rows[0])

    @property
    def limit_total(self) -> int:
        """Limits of all rows."""
        return total(self.slot_limits, self.used_rows[0])

    def add(self, int64_t limit) -> int:
        """Index of a new row of ``limit`` slots, all free: the lowest index that is free.

        O(rows). ValueError when ``capacity`` rows are live.
        """
        cdef Py_ssize_t row = 0
        check_limit(limit)
        while row < self.used_rows[0] and self.generations[row] & 1:
            row += 1
        if row == self.capacity:
            raise ValueError(f"the slot table is full: its capacity is {self.capacity} rows")
        store(&self.slot_limits[row], <int16_t> limit)
        next_generation(&self.generations[row])
        if row == self.used_rows[0]:
            self.used_rows[0] += 1
        return row

    def remove(self, Py_ssize_t row) -> None:
        """Take a row out of the table; leases of it are void from now on."""
        self.check_row(row)
        store(&self.slot_limits[row], 0)
        next_generation(&self.generations[row])
        store(&self.busy_slots[row], 0)

    def set_limit(self, Py_ssize_t row, int64_t limit) -> None:
        """Change how many slots a row has, 0 to 32767.

        Below its busy count, the row gets no claims until enough were given back.
        """
        self.check_row(row)
        check_limit(limit)
        store(&self.slot_limits[row], <int16_t> limit)

    def busy(self, Py_ssize_t row) -> int:
        """Busy slots of one row."""
        self.check_row(row)
        return load(&self.busy_slots[row])

    def limit(self, Py_ssize_t row) -> int:
        """Limit of one row."""
        self.check_row(row)
        return load(&self.slot_limits[row])

    def claim(self, Py_ssize_t preferred=-1) -> int:
        """A lease on a slot of the least busy row, or 0 when no slot is free.

        Ties go to the row ``preferred``, else round: the search begins after the row that was
        chosen last by turns. A lease is a positive number that this table does not use again.
        """
        cdef Py_ssize_t row
        cdef bint is_preferred
        cdef int16_t seen = INT16_MAX
        cdef uint32_t index
        cdef Lease* entry
        if self.first_free == self.lease_room:
            self.grow_leases()
        while True:
            row = choose_row(
                self.busy_slots, self.slot_limits, self.used_rows[0], self.cursor, &seen
            )
            if seen == INT16_MAX:
                return 0
            is_preferred = (
                0 <= preferred < self.used_rows[0]
                and load(&self.busy_slots[preferred]) == seen
                and seen < load(&self.slot_limits[preferred])
            )
            if is_preferred:
                row = preferred
            if row >= 0 and swap(&self.busy_slots[row], seen, seen + 1):
                break
        if not is_preferred:
            self.cursor = row + 1
        index = self.first_free
        entry = &self.leases[index]
        self.first_free = entry.next_free
        entry.generation = entry.generation + 1 if entry.generation < LAST_GENERATION else 1
        entry.row = <int32_t> row
        entry.row_generation = load_generation(&self.generations[row])
        return <int64_t> entry.generation << 32 | index

    def row_of(self, int64_t lease) -> int:
        """The row of a live lease; -1 once it was given back or its row removed."""
        cdef Lease* entry = self.find(lease)
        if entry == NULL or entry.row_generation != load_generation(&self.generations[entry.row]):
            return NOT_LIVE
        return entry.row

    def release(self, int64_t lease) -> bool:
        """Give a slot back. True the first time; False, and nothing done, otherwise.

        Also False for a lease whose row was removed: its slot went with the row.
        """
        cdef Lease* entry = self.find(lease)
        cdef bint is_live
        if entry == NULL:
            return False
        is_live = entry.row_generation == load_generation(&self.generations[entry.row])
        if is_live:
            decrement(&self.busy_slots[entry.row])
        entry.row = NOT_LIVE
        entry.next_free = self.first_free
        self.first_free = lease & 0xFFFFFFFF
        return is_live


# --- 4. Relay --------------------------------------------------------------------------------

# The frame layout is described in paddler/messages/link.py.
cpdef enum:
    FRAME_HEADER_BYTES = 12
    FIRST_STRUCTURED_KIND = 8  # kinds below are token text
    OVERRUN = 255  # the relay's own; never sent

cpdef enum:
    FRAMING_RAW = 0
    FRAMING_CHUNKED = 1
    FRAMING_WEBSOCKET = 2

cdef enum:
    LONGEST_CHUNK_HEADER = 18  # 16 hex digits and CRLF; no shorter than a frame header

cdef enum RunFault:
    RUN_SOUND
    RUN_TRUNCATED
    RUN_RESERVED_SET
    RUN_UNKNOWN_KIND

cdef dict RUN_FAULTS = {
    RUN_TRUNCATED: "a data message that breaks off inside a frame",
    RUN_RESERVED_SET: "a data frame whose reserved bytes are not zero",
    RUN_UNKNOWN_KIND: f"a data frame of kind {OVERRUN}, which is never sent",
}


cdef inline uint32_t read_u32(const uint8_t* data) noexcept nogil:
    return (
        data[0] | <uint32_t> data[1] << 8 | <uint32_t> data[2] << 16 | <uint32_t> data[3] << 24
    )


cdef RunFault check_run(const uint8_t* data, Py_ssize_t size) noexcept nogil:
    """Whether ``data`` is a run of whole frames, each within the rules."""
    cdef Py_ssize_t payload_bytes
    while size > 0:
        if size < FRAME_HEADER_BYTES:
            return RUN_TRUNCATED
        if data[4] == OVERRUN:
            return RUN_UNKNOWN_KIND
        if data[6] | data[7]:
            return RUN_RESERVED_SET
        payload_bytes = read_u32(data + 8)
        if payload_bytes > size - FRAME_HEADER_BYTES:
            return RUN_TRUNCATED
        data += FRAME_HEADER_BYTES + payload_bytes
        size -= FRAME_HEADER_BYTES + payload_bytes
    return RUN_SOUND


cdef int write_chunk_header(uint8_t* out, uint64_t body_bytes) noexcept nogil:
    """Writes at most ``LONGEST_CHUNK_HEADER`` bytes, and says how many. RFC 9112 §7.1."""
    cdef const char* digits = "0123456789abcdef"
    cdef int count = 1
    cdef int i
    while body_bytes >> 4 * count:
        count += 1
    for i in range(count):
        out[i] = digits[body_bytes >> 4 * (count - 1 - i) & 15]
    out[count] = c"\r"
    out[count + 1] = c"\n"
    return count + 2


cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_DONTWAIT
    ssize_t socket_send "send"(int fd, const void* data, size_t size, int flags)


cdef class SocketWriter:
    """Sends on a transport's socket at once: what its ``write`` does, for less.

    The transport remains the one that queues, pauses its protocol and finds that the peer is
    gone: it is given what the system does not take, and then everything until it has sent
    that. Whatever is written from here on has to come this way. ``fd`` is the transport's: not
    used once that is closing, and nothing may be written once the loop is closed, which tells
    no transport.
    """

    cdef object transport
    cdef int fd
    cdef bint may_be_unsent  # something that the transport was given
    cdef bint has_ended

    def __cinit__(self, transport, int fd):
        self.transport = transport
        self.fd = fd
        self.may_be_unsent = True

    def __call__(self, bytes data not None) -> None:
        """Send ``data``, or have the transport do it."""
        self.put(data)

    def end(self) -> None:
        """From here on, drop what comes: the transport's output has ended."""
        self.has_ended = True

    cdef int put(self, bytes data) except -1:
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        cdef Py_ssize_t sent = 0
        if self.has_ended:
            return 0
        if self.may_be_unsent and not self.transport.get_write_buffer_size():
            self.may_be_unsent = False
        # The number of a closed descriptor may be another client's by now.
        if not (self.may_be_unsent or self.transport.is_closing()):
            # No MSG_NOSIGNAL, which not every system has: Python ignores SIGPIPE.
            sent = socket_send(self.fd, PyBytes_AS_STRING(data), size, MSG_DONTWAIT)
            if sent == size:
                return 0
            sent = max(sent, 0)  # whatever is wrong, the transport meets it as well
        self.may_be_unsent = True
        self.transport.write(memoryview(data)[sent:] if sent else data)  # it may be megabytes
        return 0


cdef class Sink:
    """Where one stream's tokens go, and how they are encoded on the way.

    ``prefixes``, by kind of token, and ``suffix`` go around each payload; a kind without
    prefix is dropped. ``write`` gets whole bytes, framed as ``framing`` says; without it the
    relay hands tokens out as events instead. The owner sets ``is_paused`` as its transport
    pauses and resumes: what is written meanwhile is counted, and once it would be more
    than ``max_unsent_bytes`` the sink is overrun and writes nothing any more.
    """

    cdef readonly uint32_t stream_id
    cdef readonly Py_ssize_t tokens
    cdef readonly double heard_at
    cdef readonly double first_token_at  # 0: none has come
    cdef readonly Py_ssize_t unsent_bytes
    cdef readonly bint is_overrun
    cdef bint paused
    cdef bint overrun_told
    cdef object write
    cdef SocketWriter socket_writer  # ``write``, where it is one: called without the interpreter
    cdef int framing
    cdef tuple prefixes
    cdef bytes suffix
    cdef Py_ssize_t max_unsent_bytes

    def __cinit__(
        self,
        uint32_t stream_id,
        write,
        int framing,
        tuple prefixes not None,
        bytes suffix not None,
        double heard_at,
        Py_ssize_t max_unsent_bytes,
    ):
        if not FRAMING_RAW <= framing <= FRAMING_WEBSOCKET:
            raise ValueError(f"framing {framing} is none of the FRAMING constants")
        if len(prefixes) > FIRST_STRUCTURED_KIND:
            raise ValueError(f"{len(prefixes)} prefixes for {FIRST_STRUCTURED_KIND} token kinds")
        for prefix in prefixes:
            if prefix is not None and not isinstance(prefix, bytes):
                raise TypeError(f"a prefix is bytes or None, not {type(prefix).__name__}")
        self.stream_id = stream_id
        self.write = write
        self.socket_writer = write if isinstance(write, SocketWriter) else None
        self.framing = framing
        self.prefixes = prefixes
        self.suffix = suffix
        self.heard_at = heard_at
        self.max_unsent_bytes = max_unsent_bytes

    @property
    def is_paused(self) -> bool:
        """Whether the transport is paused. Setting it to False forgets ``unsent_bytes``."""
        return self.paused

    @is_paused.setter
    def is_paused(self, bint paused):
        self.paused = paused
        if not paused:
            self.unsent_bytes = 0

    cdef bint put(
        self, bytes prefix, const uint8_t* payload, Py_ssize_t payload_bytes, bytes suffix
    ) except -1:
        """Frame one body, in one allocation, and write it. False: nothing was written."""
        cdef Py_ssize_t prefix_bytes = PyBytes_GET_SIZE(prefix)
        cdef Py_ssize_t suffix_bytes = PyBytes_GET_SIZE(suffix)
        cdef Py_ssize_t body_bytes = prefix_bytes + payload_bytes + suffix_bytes
        cdef Py_ssize_t framed_bytes = body_bytes
        cdef int header_bytes = 0
        cdef uint8_t header[LONGEST_CHUNK_HEADER]
        cdef char* out
        # An empty chunk would end a chunked body.
        if self.is_overrun or body_bytes == 0:
            return False
        if self.framing == FRAMING_CHUNKED:
            header_bytes = write_chunk_header(header, body_bytes)
            framed_bytes += header_bytes + 2
        elif self.framing == FRAMING_WEBSOCKET:
            header_bytes = write_frame_header(header, TEXT, True, body_bytes, False, 0)
            framed_bytes += header_bytes
        if self.paused:
            if framed_bytes > self.max_unsent_bytes - self.unsent_bytes:
                self.is_overrun = True
                return False
            self.unsent_bytes += framed_bytes
        framed = PyBytes_FromStringAndSize(NULL, framed_bytes)
        out = PyBytes_AS_STRING(framed)
        memcpy(out, header, header_bytes)
        out += header_bytes
        memcpy(out, PyBytes_AS_STRING(prefix), prefix_bytes)
        out += prefix_bytes
        memcpy(out, payload, payload_bytes)
        out += payload_bytes
        memcpy(out, PyBytes_AS_STRING(suffix), suffix_bytes)
        if self.framing == FRAMING_CHUNKED:
            out += suffix_bytes
            out[0] = c"\r"
            out[1] = c"\n"
        if self.socket_writer is not None:
            self.socket_writer.put(framed)
        else:
            self.write(framed)
        return True

    cdef bint put_token(
        self, int kind, const uint8_t* payload, Py_ssize_t payload_bytes
    ) except -1:
        """Write one token, unless its kind is dropped. False: nothing was written."""
        prefix = self.prefixes[kind] if kind < len(self.prefixes) else None
        if prefix is None:
            return False
        return self.put(prefix, payload, payload_bytes, self.suffix)

    def send(self, body) -> None:
        """Frame a whole body and write it, unless the sink is overrun. Counts as no token."""
        cdef Py_buffer view
        if self.write is None:
            raise ValueError(f"the sink of stream {self.stream_id} has nothing to write to")
        PyObject_GetBuffer(body, &view, PyBUF_SIMPLE)
        try:
            self.put(b"", <const uint8_t*> view.buf, view.len, b"")
        finally:
            PyBuffer_Release(&view)


cdef class Relay:
    """Passes the frames of one link on to the sinks of its open streams."""

    cdef dict sinks
    cdef readonly uint64_t tokens  # passed on to clients, over all streams
    cdef readonly double heard_at  # when the last data message came; 0: none did

    def __cinit__(self):
        self.sinks = {}

    def __len__(self) -> int:
        return len(self.sinks)

    def open(self, Sink sink not None) -> None:
        """From now on, frames of the sink's stream go to it."""
        if sink.stream_id in self.sinks:
            raise ValueError(f"stream {sink.stream_id} is open already")
        self.sinks[sink.stream_id] = sink

    def close(self, stream_id) -> bool:
        """Forget a stream; False if it was not open. Its late frames are dropped."""
        return self.sinks.pop(stream_id, None) is not None

    def feed(self, message, double now) -> list[tuple[int, int, int, bytes]]:
        """Pass one data message on; what is left for the caller comes back, in order.

        That is ``(stream_id, kind, flags, payload)`` for each structured frame, for each
        token of a sink without ``write``, and once, of kind ``OVERRUN``, for a sink that was
        overrun or whose ``write`` raised; then the payload is the error's text. A message
        that breaks the layout raises RemoteProtocolError before anything of it is written.
        Borrows ``message`` for the call. ``write`` may open, close and pause streams.
        """
        cdef Py_buffer view
        cdef list events = []
        PyObject_GetBuffer(message, &view, PyBUF_SIMPLE)
        try:
            self.pass_on(<const uint8_t*> view.buf, view.len, now, events)
        finally:
            PyBuffer_Release(&view)
        return events

    cdef Py_ssize_t take_message(
        self, uint8_t* data, Py_ssize_t size, double now, uint64_t max_payload_bytes, list events
    ) except -1:
        """Pass on the data message that ``data`` begins with, still framed; its bytes, or 0.

        ``data`` is what a client sent, and is unmasked in place. 0: it begins with anything but
        a binary message that is one whole frame.
        """
        cdef FrameHeader header
        cdef uint8_t* message
        if not is_whole_message(
            data, size, True, max_payload_bytes, &header
        ) or header.opcode != BINARY:
            return 0
        message = data + header.header_bytes
        mask_bytes(message, message, header.payload_bytes, header.mask_key, 0)
        self.pass_on(message, header.payload_bytes, now, events)
        return header.header_bytes + <Py_ssize_t> header.payload_bytes

    cdef int pass_on(
        self, const uint8_t* frame, Py_ssize_t size, double now, list events
    ) except -1:
        """One data message; what is left for the caller is added to ``events``."""
        cdef const uint8_t* end = frame + size
        cdef const uint8_t* payload
        cdef Py_ssize_t payload_bytes
        cdef uint32_t stream_id
        cdef int kind, flags
        cdef RunFault fault = check_run(frame, size)
        cdef Sink sink
        if fault != RUN_SOUND:
            raise RemoteProtocolError(RUN_FAULTS[fault], close_code=1002)
        self.heard_at = now
        while frame < end:
            stream_id = read_u32(frame)
            kind = frame[4]
            flags = frame[5]
            payload_bytes = read_u32(frame + 8)
            payload = frame + FRAME_HEADER_BYTES
            frame = payload + payload_bytes
            sink = self.sinks.get(stream_id)
            if sink is None:
                continue
            sink.heard_at = now
            if kind < FIRST_STRUCTURED_KIND and sink.write is not None:
                reason = b""
                try:
                    if sink.put_token(kind, payload, payload_bytes):
                        if sink.tokens == 0:
                            sink.first_token_at = now
                        sink.tokens += 1
                        self.tokens += 1
                except Exception as error:
                    # One stream's broken transport may not cost the others their frames.
                    sink.is_overrun = True
                    reason = repr(error).encode()
                if sink.is_overrun and not sink.overrun_told:
                    sink.overrun_told = True
                    events.append((stream_id, OVERRUN, 0, reason))
            else:
                if kind < FIRST_STRUCTURED_KIND:
                    if sink.tokens == 0:
                        sink.first_token_at = now
                    sink.tokens += 1
                    self.tokens += 1
                events.append((stream_id, kind, flags, payload[:payload_bytes]))
        return 0


cdef class FrameReader:
    """Base of a WebSocket's protocol: what a transport calls at each read, without the interpreter.

    A read that begins with data messages for a relay, each of them one whole frame as a client
    sends it, is passed on up to the first thing that is none. That, and what follows, goes to
    ``on_rest``; so does all else. The deriving class has two methods:

    ``on_rest(data)``: take what was read, and set ``begins_frame``: whether the next read does.
    ``on_failure(error)``: take what the relay or ``on_events`` raised. Nothing else of the read is
    looked at, and :meth:`end_relaying` has been called.
    """

    cdef object buffer
    cdef Py_ssize_t buffer_bytes
    cdef object clock
    cdef Relay relay  # None: no message is for one
    cdef uint64_t max_payload_bytes
    cdef object on_events
    cdef public bint begins_frame

    def __init__(self, buffer, clock):
        """``buffer`` is what each read fills; ``clock`` tells the time of one, in seconds."""
        self.buffer = buffer
        self.buffer_bytes = len(buffer)
        self.clock = clock
        self.begins_frame = True

    @property
    def relayed_at(self) -> float:
        """When the relay had a message last; 0: it had none, or there is none."""
        return 0 if self.relay is None else self.relay.heard_at

    def relay_to(self, Relay relay not None, uint64_t max_payload_bytes, on_events) -> None:
        """Let ``relay`` have the data messages of the reads that follow.

        ``on_events`` takes what :meth:`Relay.feed` leaves, before anything behind it is looked
        at. A payload of more than ``max_payload_bytes`` is no data message.
        """
        self.relay = relay
        self.max_payload_bytes = max_payload_bytes
        self.on_events = on_events

    def end_relaying(self) -> None:
        """Let the relay have no further message, be it of the same read."""
        self.relay = None
        self.on_events = None

    def get_buffer(self, sizehint) -> memoryview:
        """The buffer that the next read fills."""
        return self.buffer

    def buffer_updated(self, Py_ssize_t nbytes) -> None:
        """``nbytes`` were read."""
        cdef Py_ssize_t used = 0
        if not 0 <= nbytes <= self.buffer_bytes:
            raise ValueError(f"{nbytes} bytes were read into {self.buffer_bytes}")
        if self.begins_frame and self.relay is not None:
            try:
                used = self.pass_on(nbytes)
            except Exception as error:
                self.end_relaying()
                self.on_failure(error)
                return
            if used == nbytes:
                return
        self.on_rest(self.buffer[used:nbytes])

    cdef Py_ssize_t pass_on(self, Py_ssize_t size) except -1:
        cdef Py_buffer view
        cdef double now = self.clock()
        cdef Py_ssize_t used = 0
        cdef Py_ssize_t taken
        cdef Relay relay = self.relay
        cdef list events = []
        PyObject_GetBuffer(self.buffer, &view, PyBUF_WRITABLE)
        try:
            while relay is not None:
                on_events = self.on_events  # a write may end relaying, and leave an event
                taken = relay.take_message(
                    <uint8_t*> view.buf + used, size - used, now, self.max_payload_bytes, events
                )
                if taken == 0:
                    break
                used += taken
                if events:
                    on_events(events)
                    events = []
                relay = self.relay
        finally:
            PyBuffer_Release(&view)
        return used


# --- 5. Candidates ---------------------------------------------------------------------------

cdef enum:
    SCAN_BLOCK = 32  # GCC makes a vector loop of it; of 16 it does not

cdef struct Candidate:
    # As llama.h has it: llama_token_data.
    int32_t token
    float logit
    float probability


cdef inline bint is_behind(const Candidate* left, const Candidate* right) noexcept nogil:
    """Whether ``left`` comes after ``right``: the likelier first, equals by their numbers."""
    return left.logit < right.logit or (
        left.logit == right.logit and left.token > right.token
    )


cdef inline void sift_down(
    Candidate* heap, Py_ssize_t root, Py_ssize_t count
) noexcept nogil:
    """Restore a heap whose last candidate is on top, after ``root`` was changed."""
    cdef Candidate moved = heap[root]
    cdef Py_ssize_t child = 2 * root + 1
    while child < count:
        if child + 1 < count and is_behind(&heap[child + 1], &heap[child]):
            child += 1
        if not is_behind(&heap[child], &moved):
            break
        heap[root] = heap[child]
        root = child
        child = 2 * root + 1
    heap[root] = moved


cdef void select_likeliest(
    const float* logits, Py_ssize_t count, Candidate* chosen, Py_ssize_t most
) noexcept nogil:
    """Fill ``chosen`` with the ``most`` likeliest of ``count`` tokens, in order.

    A heap of those seen so far with the last of them on top; nearly all others are not even
    as likely as that one, which is found out for a block at once, without branches.
    """
    cdef Py_ssize_t i, j, stop
    cdef float least
    cdef int is_any_above
    cdef Candidate last
    for i in range(most):
        # Not a number is taken for impossible.
        chosen[i] = Candidate(
            token=<int32_t> i,
            logit=logits[i] if logits[i] == logits[i] else -INFINITY,
            probability=0,
        )
    for i in range(most // 2 - 1, -1, -1):
        sift_down(chosen, i, most)
    i = most
    while i < count:
        least = chosen[0].logit
        stop = min(i + SCAN_BLOCK, count)
        is_any_above = 0
        if stop - i == SCAN_BLOCK:
            for j in range(SCAN_BLOCK):
                is_any_above |= logits[i + j] > least
        else:
            is_any_above = 1
        if is_any_above:
            for j in range(i, stop):
                if logits[j] > chosen[0].logit:
                    chosen[0] = Candidate(token=<int32_t> j, logit=logits[j], probability=0)
                    sift_down(chosen, 0, most)
        i = stop
    for i in range(most - 1, 0, -1):
        last = chosen[0]
        chosen[0] = chosen[i]
        chosen[i] = last
        sift_down(chosen, 0, i)


def likeliest(logits, Py_ssize_t most, candidates) -> int:
    """Fill ``candidates`` with the ``most`` likeliest tokens, in order; how many they are.

    ``logits``: a float32 for each token of the vocabulary; not a number counts as minus
    infinity. ``candidates``: room for ``most`` records of an int32 token, a float32 logit and
    a float32 that is set to 0. Of equal logits the lower token comes first. ValueError when
    ``most`` is below 1, or the room too small. O(tokens), nearly independent of ``most``.
    """
    cdef Py_buffer numbers, room
    cdef Py_ssize_t count
    PyObject_GetBuffer(logits, &numbers, PyBUF_SIMPLE)
    try:
        PyObject_GetBuffer(candidates, &room, PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            count = numbers.len // <Py_ssize_t> sizeof(float)
            if most < 1:
                raise ValueError(f"the {most} likeliest tokens; there is at least one to find")
            if most < count:
                count = most
            if room.len < count * <Py_ssize_t> sizeof(Candidate):
                raise ValueError(f"{room.len} bytes are no room for {count} candidates")
            with nogil:
                select_likeliest(
                    <const float*> numbers.buf,
                    numbers.len // <Py_ssize_t> sizeof(float),
                    <Candidate*> room.buf,
                    count,
                )
        finally:
            PyBuffer_Release(&room)
    finally:
        PyBuffer_Release(&numbers)
    return count


cdef class SeenTokens:
    """How often each token is among the last ``window`` that were seen, and what that costs it.

    Tokens that were seen are few, so penalties change the logits of those alone, in place.
    Memory: 5 bytes a token of the vocabulary, touched where tokens are seen, and 8 of the window.
    """

    cdef Py_ssize_t vocabulary
    cdef Py_ssize_t window
    cdef Py_ssize_t seen  # all of them, also those that left the window
    cdef Py_ssize_t listed_count
    cdef int32_t* ring
    cdef int32_t* counts
    cdef uint8_t* is_listed
    cdef int32_t* listed  # tokens whose count is above zero, and some that it was
    cdef float* before  # their logits, between penalize and restore
    cdef Py_ssize_t penalized
    cdef Py_ssize_t room

    def __cinit__(self, Py_ssize_t vocabulary, Py_ssize_t window):
        if not 0 < vocabulary <= INT32_MAX:
            raise ValueError(f"a vocabulary of {vocabulary} tokens")
        if window < 1:
            raise ValueError(f"a window of {window} tokens; it has at least one")
        self.vocabulary = vocabulary
        self.window = window
        self.room = min(vocabulary, window + 1)
        self.ring = <int32_t*> PyMem_Calloc(window, sizeof(int32_t))
        self.counts = <int32_t*> PyMem_Calloc(vocabulary, sizeof(int32_t))
        self.is_listed = <uint8_t*> PyMem_Calloc(vocabulary, 1)
        self.listed = <int32_t*> PyMem_Calloc(self.room, sizeof(int32_t))
        self.before = <float*> PyMem_Calloc(self.room, sizeof(float))
        if (
            self.ring == NULL or self.counts == NULL or self.is_listed == NULL
            or self.listed == NULL or self.before == NULL
        ):  # the machine is out of memory
            raise MemoryError("no memory for seen tokens")  # pragma: no cover

    def __dealloc__(self):
        PyMem_Free(self.ring)
        PyMem_Free(self.counts)
        PyMem_Free(self.is_listed)
        PyMem_Free(self.listed)
        PyMem_Free(self.before)

    cdef void drop_unseen(self) noexcept nogil:
        """Take tokens that are not in the window any more off the list."""
        cdef Py_ssize_t i = 0
        cdef int32_t token
        while i < self.listed_count:
            token = self.listed[i]
            if self.counts[token]:
                i += 1
                continue
            self.is_listed[token] = 0
            self.listed_count -= 1
            self.listed[i] = self.listed[self.listed_count]

    def accept(self, int32_t token) -> None:
        """See one more. IndexError for what is no token, RuntimeError between the other two."""
        cdef Py_ssize_t at = self.seen % self.window
        if not 0 <= token < self.vocabulary:
            raise IndexError(f"token {token} of a vocabulary of {self.vocabulary}")
        if self.penalized:
            raise RuntimeError("the logits are not restored yet")
        if self.seen >= self.window:
            self.counts[self.ring[at]] -= 1
        self.ring[at] = token
        self.seen += 1
        self.counts[token] += 1
        if not self.is_listed[token]:
            if self.listed_count == self.room:
                self.drop_unseen()
            self.is_listed[token] = 1
            self.listed[self.listed_count] = token
            self.listed_count += 1

    def penalize(
        self, logits, float repeat, float frequency, float presence
    ) -> None:
        """Make seen tokens less likely, as llama.h's penalties do, until :meth:`restore`.

        Positive logits are divided by ``repeat``, others multiplied; then ``frequency`` times
        the count and ``presence`` are taken off. ValueError when ``logits`` is no vocabulary.
        """
        cdef Py_buffer view
        cdef float* numbers
        cdef float logit
        cdef Py_ssize_t i
        cdef int32_t token
        PyObject_GetBuffer(logits, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            if view.len != self.vocabulary * <Py_ssize_t> sizeof(float):
                raise ValueError(f"{view.len} bytes are no {self.vocabulary} logits")
            if self.penalized:
                raise RuntimeError("the logits are not restored yet")
            self.drop_unseen()
            numbers = <float*> view.buf
            for i in range(self.listed_count):
                token = self.listed[i]
                logit = numbers[token]
                self.before[i] = logit
                logit = logit * repeat if logit <= 0 else logit / repeat
                numbers[token] = logit - (<float> self.counts[token] * frequency + presence)
            self.penalized = self.listed_count
        finally:
            PyBuffer_Release(&view)

    def restore(self, logits) -> None:
        """Put the logits back as they were before :meth:`penalize`."""
        cdef Py_buffer view
        cdef float* numbers
        cdef Py_ssize_t i
        PyObject_GetBuffer(logits, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            if view.len != self.vocabulary * <Py_ssize_t> sizeof(float):
                raise ValueError(f"{view.len} bytes are no {self.vocabulary} logits")
            numbers = <float*> view.buf
            for i in range(self.penalized):
                numbers[self.listed[i]] = self.before[i]
            self.penalized = 0
        finally:
            PyBuffer_Release(&view)
