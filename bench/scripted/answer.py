"""One answer of a scripted agent, and the frames that it is told in."""

from typing import Final

from bench.scripted.script import EMBEDDING, Fault, Script, prompt_of
from paddler.messages import link as wire
from paddler.messages.inference import GenerateEmbeddingBatch, TokenUsage
from paddler.messages.link import FRAME_FINAL, FRAME_HEADER, FrameKind, encode_data_frame

DONE_EMBEDDING: Final = b'"Done"'


class Answer:
    """What is left to say on one stream. Changed by its agent only.

    ``fault_at``: how many tokens are left when ``fault`` strikes.
    """

    __slots__ = (
        "batch",
        "fault",
        "fault_at",
        "is_silent",
        "left",
        "prompt_tokens",
        "ready_at",
        "reason",
        "said",
        "stream_id",
    )

    def __init__(
        self, start: wire.StartStream, script: Script, *, ready_at: float, fault: Fault | None
    ) -> None:
        self.stream_id = start.stream_id
        self.prompt_tokens, wanted = prompt_of(start.job)
        self.batch: GenerateEmbeddingBatch | None = None
        if isinstance(start.job, wire.EmbeddingJob):
            self.batch = start.job.request
        self.left = max(0, min(wanted, script.tokens))
        self.reason = "length" if wanted <= script.tokens else "stop"
        self.said = 0
        self.ready_at = ready_at
        self.fault = fault
        self.fault_at = (self.left + 1) // 2
        self.is_silent = False

    def tokens(self, text: bytes, count: int) -> bytes:
        """Frames of the next ``count`` tokens."""
        self.left -= count
        self.said += count
        frame = FRAME_HEADER.pack(self.stream_id, FrameKind.CONTENT, 0, 0, len(text)) + text
        return frame if count == 1 else frame * count

    def end(self, reason: str) -> bytes:
        """The final frame."""
        usage = TokenUsage(prompt_tokens=self.prompt_tokens, content_tokens=self.said)
        payload = wire.encode(wire.Finished(usage, reason))
        return encode_data_frame(self.stream_id, FrameKind.DONE, payload, FRAME_FINAL)

    def embeddings(self, batch: GenerateEmbeddingBatch) -> bytes:
        """All of an embedding request's answer: the same vector for every document."""
        method = wire.encode(batch.normalization_method)
        frames = [
            encode_data_frame(
                self.stream_id,
                FrameKind.EMBEDDING,
                b'{"Embedding":{"embedding":%b,"normalization_method":%b,"pooling_type":"Last",'
                b'"source_document_id":%b}}' % (EMBEDDING, method, wire.encode(document.id)),
            )
            for document in batch.input_batch
        ]
        usage = wire.encode(wire.EmbeddingUsage(self.prompt_tokens))
        frames += [
            encode_data_frame(self.stream_id, FrameKind.EMBEDDING_USAGE, usage),
            encode_data_frame(self.stream_id, FrameKind.EMBEDDING_END, DONE_EMBEDDING, FRAME_FINAL),
        ]
        return b"".join(frames)
