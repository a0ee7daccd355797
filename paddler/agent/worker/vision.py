"""Images through llama.cpp's mtmd: a projector turns them into what a text model decodes.

An image becomes one chunk or more (large ones are cut into tiles), with text around each
as the model expects it. A chunk is encoded, then decoded like a batch of tokens whose
embeddings are given. Encoding is not done in a thread of its own: on a CPU it would fight
over the cores with the decoding of text, on a GPU it is short.
"""

import ctypes
import os
from collections.abc import Sequence
from typing import Any, Final, Self

from llama_cpp import llama_cpp, mtmd_cpp

from paddler.agent.worker.batch import NO_TOKEN, PlacedImage
from paddler.agent.worker.engine import DecodeOutcome, TokenizedPrompt
from paddler.agent.worker.engine_log import EngineError, native_log
from paddler.agent.worker.images import IMAGE_MARKER, RgbImage

# The bindings are annotated more narrowly than what ctypes takes and C gives.
_mtmd: Final[Any] = mtmd_cpp


class Projector:
    """The part of a multimodal model that sees. Idempotent ``close``, or use ``with``.

    Raises :class:`EngineError`. ``model`` is the native text model, which outlives this.
    """

    def __init__(self, path: str, model: Any, *, threads: int, use_gpu: bool) -> None:
        params = _mtmd.mtmd_context_params_default()
        params.use_gpu = use_gpu
        params.n_threads = threads
        params.print_timings = False
        params.media_marker = IMAGE_MARKER.encode()
        native_log.first_error = None
        self._context: Any = _mtmd.mtmd_init_from_file(os.fsencode(path), model, params)
        if not self._context:
            raise native_log.refused(f"{path} cannot be loaded as a multimodal projection")
        if not _mtmd.mtmd_support_vision(self._context):
            self.close()
            raise native_log.refused(f"{path} projects no images")

    @property
    def is_causal(self) -> bool:
        """Whether an image may be decoded in parts; if not, all of it is computed at once."""
        return not _mtmd.mtmd_decode_use_non_causal(self._context, None)

    def tokenize(self, text: str, images: Sequence[RgbImage]) -> TokenizedPrompt:
        """The prompt with each marker in ``text`` replaced by the image of the same rank.

        Raises :class:`EngineError`.
        """
        if (markers := text.count(IMAGE_MARKER)) != len(images):
            raise EngineError(
                f"it has {markers} places for {len(images)} images: the chat template must write "
                f"each image once, and no text may hold {IMAGE_MARKER}"
            )
        encoded = text.encode("utf-8", "replace")
        # One more than needed: ctypes knows no empty arrays of pointers.
        bitmaps = (ctypes.c_void_p * (len(images) + 1))()
        chunks = _mtmd.mtmd_input_chunks_init()
        native_log.first_error = None
        try:
            for index, image in enumerate(images):
                pixels = (ctypes.c_uint8 * len(image.pixels)).from_buffer_copy(image.pixels)
                bitmaps[index] = _mtmd.mtmd_bitmap_init(image.width, image.height, pixels)
            asked = _mtmd.mtmd_input_text(
                text=encoded, text_len=len(encoded), add_special=True, parse_special=True
            )
            if _mtmd.mtmd_tokenize(
                self._context, chunks, ctypes.byref(asked), bitmaps, len(images)
            ):
                raise native_log.refused("the images cannot be put into the prompt")
            return _prompt_of(chunks)
        except BaseException:
            _mtmd.mtmd_input_chunks_free(chunks)
            raise
        finally:
            for bitmap in bitmaps:
                if bitmap:
                    _mtmd.mtmd_bitmap_free(bitmap)

    def encode(self, image: PlacedImage) -> bool:
        """Compute the embeddings that :meth:`decode` takes; ``False``: it failed."""
        return bool(_mtmd.mtmd_encode_chunk(self._context, image.native) == 0)

    def decode(
        self, context: Any, image: PlacedImage, *, slot: int, position: int, n_batch: int
    ) -> DecodeOutcome:
        """Decode the image that was encoded last, from ``position`` on.

        May be repeated after :attr:`DecodeOutcome.NO_KV_ROOM`. ``context`` is the native one.
        """
        end = llama_cpp.llama_pos()
        return DecodeOutcome(
            _mtmd.mtmd_helper_decode_image_chunk(
                self._context,
                context,
                image.native,
                _mtmd.mtmd_get_output_embd(self._context),
                position,
                slot,
                n_batch,
                ctypes.byref(end),
                _mtmd.mtmd_helper_post_decode_callback(),
                None,
            )
        )

    def close(self) -> None:
        """Free the projector. Prompts made with it may be closed later."""
        context, self._context = self._context, None
        if context:
            _mtmd.mtmd_free(context)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _prompt_of(chunks: Any) -> TokenizedPrompt:
    """The prompt that owns ``chunks`` from now on."""
    tokens: list[int] = []
    images = []
    count = ctypes.c_size_t()
    for index in range(_mtmd.mtmd_input_chunks_size(chunks)):
        chunk = _mtmd.mtmd_input_chunks_get(chunks, index)
        if _mtmd.mtmd_input_chunk_get_type(chunk) == _mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT:
            text = _mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
            # mtmd puts these in for tokens around images that the vocabulary does not have.
            tokens += [token for token in text[: count.value] if token != NO_TOKEN]
        else:
            cells = _mtmd.mtmd_input_chunk_get_n_tokens(chunk)
            positions = _mtmd.mtmd_input_chunk_get_n_pos(chunk)
            images.append(PlacedImage(len(tokens), cells, positions, chunk))
            tokens += [NO_TOKEN] * cells
    return TokenizedPrompt(tokens, images, lambda: _mtmd.mtmd_input_chunks_free(chunks))
