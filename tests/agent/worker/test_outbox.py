from paddler.agent.worker.outbox import Outbox
from paddler.messages.link import FRAME_FINAL, FRAME_REFUSED, FrameKind
from tests.agent.worker.frames import Frame, split_frames


def packets(outbox: Outbox) -> list[tuple[list[tuple[int, FrameKind]], tuple[int, ...]]]:
    taken = []
    while (packet := outbox.take()) is not None:
        taken.append(([(f.stream_id, f.kind) for f in split_frames(packet[0])], packet[1]))
    return taken


def test_a_step_is_one_packet() -> None:
    outbox = Outbox()
    outbox.add(1, FrameKind.CONTENT, b"a")
    outbox.add(2, FrameKind.CONTENT, b"b")
    outbox.finish(1, FrameKind.DONE, b"{}")
    outbox.add(2, FrameKind.CONTENT, b"c")
    assert packets(outbox) == [
        (
            [
                (1, FrameKind.CONTENT),
                (2, FrameKind.CONTENT),
                (1, FrameKind.DONE),
                (2, FrameKind.CONTENT),
            ],
            (1,),
        )
    ]
    assert outbox.take() is None


def test_a_token_behind_a_result_of_its_stream_opens_a_packet() -> None:
    outbox = Outbox()
    outbox.add(1, FrameKind.TOOL_CALL, b"a")
    outbox.add(1, FrameKind.RESULT, b"{}")
    outbox.add(2, FrameKind.CONTENT, b"b")
    outbox.add(1, FrameKind.CONTENT, b"c")
    outbox.finish(1, FrameKind.DONE, b"{}")
    assert packets(outbox) == [
        ([(1, FrameKind.TOOL_CALL), (1, FrameKind.RESULT), (2, FrameKind.CONTENT)], ()),
        ([(1, FrameKind.CONTENT), (1, FrameKind.DONE)], (1,)),
    ]


def test_flags_say_that_a_frame_is_the_last_and_why() -> None:
    outbox = Outbox()
    outbox.finish(1, FrameKind.FAILED, b"{}", FRAME_REFUSED)
    taken = outbox.take()
    assert taken is not None
    assert taken[0][5] == FRAME_FINAL | FRAME_REFUSED
    assert split_frames(taken[0]) == [Frame(1, FrameKind.FAILED, True, b"{}")]


def test_a_cleared_outbox_is_empty() -> None:
    outbox = Outbox()
    outbox.finish(1, FrameKind.DONE, b"{}")
    outbox.clear()
    assert outbox.take() is None
