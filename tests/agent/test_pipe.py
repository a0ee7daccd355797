import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddler.agent.pipe import PacketParser
from paddler.errors import RemoteProtocolError
from paddler.messages.worker import MAX_PACKET_BYTES, PACKET_HEADER, PacketKind, encode_packet

packets = st.tuples(
    st.sampled_from(PacketKind),
    st.binary(max_size=50),
    st.lists(st.integers(0, 2**32 - 1), max_size=5).map(tuple),
)


@given(packets=st.lists(packets, max_size=6), cuts=st.lists(st.integers(0, 400), max_size=8))
def test_packets_come_out_as_they_went_in_however_the_bytes_arrive(
    packets: list[tuple[PacketKind, bytes, tuple[int, ...]]], cuts: list[int]
) -> None:
    wire = b"".join(encode_packet(kind, body, ids) for kind, body, ids in packets)
    parser = PacketParser()
    edges = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    seen = []
    for start, end in itertools.pairwise(edges):
        seen += parser.feed(wire[start:end])
    assert seen == packets


@pytest.mark.parametrize(
    "header",
    [
        PACKET_HEADER.pack(4, 2, 0, 0),  # unknown kind
        PACKET_HEADER.pack(4, 1, 0, 1),  # more ids than bytes
        PACKET_HEADER.pack(MAX_PACKET_BYTES + 1, 1, 0, 0),
        PACKET_HEADER.pack(0, 1, 0, 0),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(header: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="packet header"):
        PacketParser().feed(header)
