"""llama.cpp, through the low-level bindings: one model, one context, one batch per step.

Nothing else in the worker decodes with llama.cpp. All calls come from one thread. Native
handles are freed once, also when a constructor fails half way.
"""

import ctypes
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Self

import numpy as np
from llama_cpp import llama_cpp, mtmd_cpp
from llama_cpp._ggml import libggml

from paddler.agent.worker.batch import TILE_TOKENS, TILES_FROM_CELLS, Chunk, PlacedImage
from paddler.agent.worker.candidates import SamplingFailed
from paddler.agent.worker.embeddings import EmbeddingFailed, Vector
from paddler.agent.worker.engine import (
    DecodeOutcome,
    GrammarRefused,
    ImagesRefused,
    NoToken,
    TokenizedPrompt,
)
from paddler.agent.worker.engine_log import EngineError, native_log
from paddler.agent.worker.grammar import Gbnf
from paddler.agent.worker.grammar_sampler import GrammarSampler
from paddler.agent.worker.images import RgbImage
from paddler.agent.worker.logprobs import TokenLogprobs, token_logprobs
from paddler.agent.worker.long_text import PART_CHARS, tokenize_in_parts
from paddler.agent.worker.sampling import DrawingDesk, Logits, Sampler, plan_of, resolve
from paddler.agent.worker.swapped_cells import SwappedCells
from paddler.agent.worker.vision import Projector
from paddler.messages.link import Sampling
from paddler.messages.state import U32_MAX, InferenceParameters, PoolingType

_log = logging.getLogger(__name__)

MAX_UBATCH: Final = 512

# llama.cpp rounds contexts up to this, but only after it has bounded the batch by what was asked.
CONTEXT_STEP: Final = 256

_KV_TYPES: Final = {
    "F32": llama_cpp.GGML_TYPE_F32,
    "F16": llama_cpp.GGML_TYPE_F16,
    "BF16": 30,  # ggml.h, GGML_TYPE_BF16; the bindings leave it out
    "Q8_0": llama_cpp.GGML_TYPE_Q8_0,
    "Q4_0": llama_cpp.GGML_TYPE_Q4_0,
    "Q4_1": llama_cpp.GGML_TYPE_Q4_1,
    "IQ4_NL": llama_cpp.GGML_TYPE_IQ4_NL,
    "Q5_0": llama_cpp.GGML_TYPE_Q5_0,
    "Q5_1": llama_cpp.GGML_TYPE_Q5_1,
}

_POOLING_TYPES: Final[dict[PoolingType, int]] = {
    "Unspecified": llama_cpp.LLAMA_POOLING_TYPE_UNSPECIFIED,
    "None": llama_cpp.LLAMA_POOLING_TYPE_NONE,
    "Mean": llama_cpp.LLAMA_POOLING_TYPE_MEAN,
    "Cls": llama_cpp.LLAMA_POOLING_TYPE_CLS,
    "Last": llama_cpp.LLAMA_POOLING_TYPE_LAST,
    "Rank": llama_cpp.LLAMA_POOLING_TYPE_RANK,
}
_POOLING_NAMES: Final[dict[int, PoolingType]] = {
    value: name for name, value in _POOLING_TYPES.items()
}


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _on_log(level: int, text: bytes, _user_data: object) -> None:
    native_log.on_text(level, text)


def start_backend() -> None:
    """Send llama.cpp's log to ``logging`` and set its backends up. Once per process."""
    llama_cpp.llama_log_set(_on_log, ctypes.c_void_p(None))
    mtmd_cpp.mtmd_helper_log_set(_on_log, ctypes.c_void_p(None))
    llama_cpp.llama_backend_init()


def device_names() -> list[str]:
    """The devices that this build of llama.cpp can use here, as ``name: description``."""
    libggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    libggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    libggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    for name in ("ggml_backend_dev_name", "ggml_backend_dev_description"):
        getattr(libggml, name).argtypes = [ctypes.c_void_p]
        getattr(libggml, name).restype = ctypes.c_char_p
    devices = map(libggml.ggml_backend_dev_get, range(libggml.ggml_backend_dev_count()))
    return [
        f"{libggml.ggml_backend_dev_name(device).decode()}: "
        f"{libggml.ggml_backend_dev_description(device).decode()}"
        for device in devices
    ]


class Model:
    """The weights and the vocabulary. Idempotent ``close``, or use ``with``."""

    def __init__(
        self, path: str, *, n_gpu_layers: int, on_progress: Callable[[float], bool]
    ) -> None:
        """``on_progress``: called with 0 to 1 while loading; ``False`` ends it."""
        self._model: Any = None
        self._pieces: dict[int, bytes] = {}
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers

        # The callback must outlive the call that uses it: a local does.
        @llama_cpp.llama_progress_callback  # type: ignore[untyped-decorator]
        def progress(fraction: float, _user_data: object) -> bool:
            return on_progress(fraction)

        params.progress_callback = progress
        native_log.first_error = None
        self._model = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
        if not self._model:
            raise native_log.refused(f"{path} cannot be loaded")
        self._vocab: Any = llama_cpp.llama_model_get_vocab(self._model)
        self.vocabulary_size: int = llama_cpp.llama_vocab_n_tokens(self._vocab)
        self._bos_text = self._special_text(llama_cpp.llama_vocab_bos)
        # EOS belongs behind the last part only, which llama_tokenize cannot be told.
        self._adds_eos = bool(llama_cpp.llama_vocab_get_add_eos(self._vocab))
        self._cut_before = self._special_texts()

    @property
    def handle(self) -> Any:
        """The native model, for making contexts."""
        return self._model

    @property
    def vocab(self) -> Any:
        """The native vocabulary, for grammars."""
        return self._vocab

    @property
    def has_encoder(self) -> bool:
        """Whether it needs an encoder's pass first (T5 and its kin)."""
        return bool(llama_cpp.llama_model_has_encoder(self._model))

    @property
    def keeps_parts(self) -> bool:
        """Whether a part of what a sequence remembers can be dropped: a state is all or nothing."""
        return not (self.is_recurrent or llama_cpp.llama_model_is_hybrid(self._model))

    @property
    def is_recurrent(self) -> bool:
        """Whether a sequence is remembered by a state alone, and takes no cells."""
        return bool(llama_cpp.llama_model_is_recurrent(self._model))

    @property
    def window(self) -> int:
        """On how many tokens layers with a sliding window look back; 0: there are none."""
        return int(llama_cpp.llama_model_n_swa(self._model))

    @property
    def trained_context_size(self) -> int:
        """Tokens of the longest sequences that it was trained with."""
        return int(llama_cpp.llama_model_n_ctx_train(self._model))

    @property
    def embedding_size(self) -> int:
        """Numbers in one embedding."""
        return int(llama_cpp.llama_model_n_embd_out(self._model))

    @property
    def rank_outputs(self) -> int:
        """Numbers that a reranking model gives for one document."""
        return max(1, int(llama_cpp.llama_model_n_cls_out(self._model)))

    @property
    def chat_template(self) -> str | None:
        """The template in the file, if it has one."""
        return self._template(None)

    @property
    def tools_template(self) -> str | None:
        """The template in the file for requests with tools, if it has one of its own."""
        return self._template(b"tool_use")

    def _template(self, name: bytes | None) -> str | None:
        template: bytes | None = llama_cpp.llama_model_chat_template(self._model, name)
        return None if template is None else template.decode("utf-8", "replace")

    @property
    def special_tokens(self) -> dict[str, str]:
        """Texts of the tokens that chat templates ask for; empty where the model has none."""
        return {
            "bos_token": self._bos_text,
            "eos_token": self._special_text(llama_cpp.llama_vocab_eos),
            "nl_token": self._special_text(llama_cpp.llama_vocab_nl),
        }

    def metadata(self) -> dict[str, str]:
        """Every key of the file whose value is no array, as text, sorted by key."""
        entries = {}
        for index in range(llama_cpp.llama_model_meta_count(self._model)):
            key = self._text_by_index(llama_cpp.llama_model_meta_key_by_index, index)
            entries[key] = self._text_by_index(llama_cpp.llama_model_meta_val_str_by_index, index)
        return dict(sorted(entries.items()))

    def tokenize(self, text: str, *, limit: int) -> list[int]:
        """Tokens of ``text``, special ones recognised, BOS and EOS where the model wants them.

        A text of more than ``limit`` tokens may come back cut; see ``tokenize_in_parts``.
        """
        text = self.without_bos(text)
        if len(text) <= PART_CHARS or self._adds_eos:
            return self._tokenize_part(text, True)
        return tokenize_in_parts(text, self._tokenize_part, self._cut_before, limit=limit)

    def without_bos(self, text: str) -> str:
        """``text`` without the BOS that many templates write and llama.cpp adds itself."""
        if self._bos_text and llama_cpp.llama_vocab_get_add_bos(self._vocab):
            return text.removeprefix(self._bos_text)
        return text

    def _tokenize_part(self, text: str, is_first: bool) -> list[int]:
        # "replace": a template can write lone surrogates, which are no UTF-8.
        encoded = text.encode("utf-8", "replace")
        room = len(encoded) + 2  # no token is empty, but BOS and EOS
        tokens = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(
            self._vocab, encoded, len(encoded), tokens, room, is_first, True
        )
        if count < 0:  # A normaliser made the text longer.
            room = -count
            tokens = (llama_cpp.llama_token * room)()
            count = llama_cpp.llama_tokenize(
                self._vocab, encoded, len(encoded), tokens, room, is_first, True
            )
        return list(tokens[:count])

    def piece(self, token: int) -> bytes:
        """The bytes of a token; special tokens as their text."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._read_piece(token)
        return piece

    def is_end(self, token: int) -> bool:
        """Whether the vocabulary says that this token ends an answer."""
        return bool(llama_cpp.llama_vocab_is_eog(self._vocab, token))

    def close(self) -> None:
        """Free the weights. Contexts made from it must be closed before."""
        model, self._model = self._model, None
        if model:
            llama_cpp.llama_model_free(model)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _special_text(self, which: Callable[[Any], Any]) -> str:
        token = which(self._vocab)
        return (
            ""
            if token == llama_cpp.LLAMA_TOKEN_NULL
            else self.piece(token).decode(errors="replace")
        )

    def _special_texts(self) -> list[str]:
        """Texts of the special tokens that leave the white space before them alone."""
        special = (
            llama_cpp.LLAMA_TOKEN_ATTR_CONTROL
            | llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED
            | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
        )
        texts = []
        for token in range(self.vocabulary_size):
            attributes = llama_cpp.llama_vocab_get_attr(self._vocab, token)
            if attributes & special and not attributes & llama_cpp.LLAMA_TOKEN_ATTR_LSTRIP:
                text = llama_cpp.llama_vocab_get_text(self._vocab, token)
                texts.append(text.decode("utf-8", "replace"))
        return [text for text in texts if text]

    def _read_piece(self, token: int) -> bytes:
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, size, 0, True)
            if length >= 0:
                return buffer.raw[:length]
            size = -length

    def _text_by_index(self, read: Callable[..., int], index: int) -> str:
        size = 256
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = read(self._model, index, buffer, size)
            if length < size:
                return buffer.value.decode("utf-8", "replace")
            size = length + 1


class LlamaEngine:
    """One context with ``slots`` sequences over a :class:`Model`, which it does not own.

    Nor does it own the ``projector`` that lets it see images.

    With ``kv_unified``, all slots share its cells, so that one long conversation may use what
    others leave. Without, each slot has an equal part for itself (a *stream* of llama.cpp), and
    no token is compared to the cells of another's. Embeddings, recurrent models and those with a
    sliding window are unified all the same. Idempotent ``close``, or use ``with``.
    """

    def __init__(
        self,
        model: Model,
        *,
        parameters: InferenceParameters,
        slots: int,
        threads: int,
        projector: Projector | None = None,
        kv_unified: bool = True,
    ) -> None:
        self._model = model
        self._projector = projector
        self._parameters = parameters
        self._samplers: dict[int, Sampler] = {}
        self._top_logprobs: dict[int, int] = {}  # of slots that asked for some
        self._drawn: dict[int, int] = {}
        self._output_index: dict[int, int] = {}
        self._swapped: dict[int, SwappedCells] = {}  # by slot
        self._context: Any = None

        most = llama_cpp.llama_max_parallel_sequences()
        if slots > most:
            raise EngineError(
                f"{slots} slots are more than the {most} that one context of llama.cpp can have"
            )
        native_log.first_error = None
        self.keeps_parts: bool = model.keeps_parts
        self._window: int = model.window
        has_gpu: bool = llama_cpp.llama_supports_gpu_offload()
        self.runs_on_cpu: bool = not (has_gpu and parameters.n_gpu_layers)
        # A state takes no cells. With a sliding window, llama.cpp does not copy all that slots
        # would share. Documents are decoded from empty cells.
        can_divide = not (model.is_recurrent or self._window or parameters.enable_embeddings)
        self.kv_unified: bool = kv_unified or slots == 1 or not can_divide
        can_gather = (
            self.runs_on_cpu
            and self.kv_unified
            and self._has_plain_cells
            and not parameters.enable_embeddings
            and slots < most
        )
        # A sequence that is no slot's: cells pass through it while they are gathered.
        self._spare: int | None = slots if can_gather else None
        sequences = slots + 1 if can_gather else slots
        params = _context_params(parameters, sequences=sequences, threads=threads)
        if not self.kv_unified:
            params.kv_unified = False
            # llama.cpp rounds each part up, but only after it has bounded the batch by the whole.
            context_size = parameters.context_size or model.trained_context_size
            params.n_ctx = _rounded_up(context_size, CONTEXT_STEP * slots)
        if projector is not None and not projector.is_causal:
            params.n_ubatch = params.n_batch  # llama.cpp aborts where an image needs more
        self._context = llama_cpp.llama_init_from_model(model.handle, params)
        if not self._context:
            raise native_log.refused("the context cannot be created")
        self._memory: Any = llama_cpp.llama_get_memory(self._context)
        self.context_size: int = llama_cpp.llama_n_ctx(self._context)
        self.slot_context_size: int = llama_cpp.llama_n_ctx_seq(self._context)
        # llama.cpp bounds the batch by the context itself, but for models without causal attention.
        self.n_batch: int = min(_n_batch(parameters, slots), self.context_size)
        # What is computed at once: more in one batch gains nothing.
        self.max_prefill_beside_decode: int = llama_cpp.llama_n_ubatch(self._context)
        self._batch = _Batch(self.n_batch, slots)
        self._desk = DrawingDesk(model.vocab)
        self._logits_type = ctypes.c_float * model.vocabulary_size

    @property
    def has_memory(self) -> bool:
        """Whether the context remembers tokens; without, it cannot generate text."""
        return bool(self._memory)

    def warm_up(self) -> None:
        """Decode once, so that the first request does not pay for page faults and buffers."""
        llama_cpp.llama_set_warmup(self._context, True)
        outcome = self._batch.decode(self._context, [(0, 0, [0])], self._output_index)
        llama_cpp.llama_set_warmup(self._context, False)
        if outcome is not DecodeOutcome.DECODED:
            raise native_log.refused(f"the first decode failed ({outcome.name})")
        llama_cpp.llama_synchronize(self._context)
        llama_cpp.llama_memory_clear(self._memory, True)
        self._desk.prepare()

    def tokenize(self, text: str, *, limit: int) -> list[int]:
        """See :meth:`Model.tokenize`."""
        return self._model.tokenize(text, limit=limit)

    def tokenize_with_images(
        self, text: str, images: Sequence[RgbImage], *, limit: int
    ) -> TokenizedPrompt:
        """See :meth:`Projector.tokenize`. A text that is too long comes back without images."""
        tokens = self.tokenize(text, limit=limit)
        if len(tokens) > limit:
            return TokenizedPrompt(tokens)  # mtmd would tokenize all of it in one call
        if self._projector is None:
            raise ImagesRefused("no multimodal projection is loaded")
        try:
            return self._projector.tokenize(self._model.without_bos(text), images)
        except EngineError as error:
            raise ImagesRefused(str(error)) from error

    def piece(self, token: int) -> bytes:
        """See :meth:`Model.piece`."""
        return self._model.piece(token)

    def is_end(self, token: int) -> bool:
        """See :meth:`Model.is_end`."""
        return self._model.is_end(token)

    def keep(self, slot: int, length: int) -> bool:
        """Drop a slot's cells but the first ``length``; ``False``: it had to be all of them."""
        if self._has_window(slot, length) and llama_cpp.llama_memory_seq_rm(
            self._memory, slot, length, -1
        ):
            return True
        llama_cpp.llama_memory_seq_rm(self._memory, slot, -1, -1)
        return False

    def share(self, source: int, slot: int, length: int) -> bool:
        """See :class:`Engine`. Where cells are unified, only who they are of is copied."""
        llama_cpp.llama_memory_seq_rm(self._memory, slot, -1, -1)
        if not self.keeps_parts or not self._has_window(source, length):
            return False
        if self.kv_unified:
            llama_cpp.llama_memory_seq_cp(self._memory, source, slot, 0, length)
            return True
        # Not llama_memory_seq_cp: between streams it copies all cells, in use or not, at the next
        # decode, and ends the process if it is told of a part.
        copy = SwappedCells.of(self._context, source)
        return copy is not None and copy.bring_back(self._context, slot) and self.keep(slot, length)

    def swap_out(self, slot: int) -> bool:
        """See :class:`Engine`. Cells that are shared are copied, and stay for the others."""
        if not self._has_plain_cells:
            return False
        swapped = SwappedCells.of(self._context, slot)
        if swapped is None:
            return False
        self._swapped[slot] = swapped
        llama_cpp.llama_memory_seq_rm(self._memory, slot, -1, -1)
        return True

    def swap_in(self, source: int, slot: int) -> bool:
        """See :class:`Engine`."""
        llama_cpp.llama_memory_seq_rm(self._memory, slot, -1, -1)
        return self._swapped[source].bring_back(self._context, slot)

    def drop_swapped(self, slot: int) -> None:
        """See :class:`Engine`."""
        self._swapped.pop(slot, None)

    @property
    def _has_plain_cells(self) -> bool:
        """Whether a sequence is its cells, each of which is there until it is dropped.

        Not with a state in their place. Not with a sliding window: llama.cpp copies only what
        the last token sees, and gives away cells that an earlier one did.
        """
        return self.keeps_parts and not self._window

    def _has_window(self, slot: int, length: int) -> bool:
        """Whether a token behind ``length`` cells finds all that it looks back on.

        Of a layer with a sliding window, llama.cpp gives away the cells that the last token
        of a sequence does not see. A token before it may have seen them.
        """
        end = llama_cpp.llama_memory_seq_pos_max(self._memory, slot) + 1
        if not self._window or length in (0, end):
            return True
        first = llama_cpp.llama_memory_seq_pos_min(self._memory, slot)
        return bool(first <= max(0, length - self._window + 1))

    def gather(self, starts: Mapping[int, int]) -> list[int]:
        """See :class:`Engine`. llama.cpp puts cells into the first free ones, which those were."""
        spare = self._spare
        if spare is None:
            return []
        copies: dict[int, SwappedCells] = {}
        for slot, start in starts.items():
            llama_cpp.llama_memory_seq_cp(self._memory, slot, spare, start, -1)
            copy = SwappedCells.of(self._context, spare)
            llama_cpp.llama_memory_seq_rm(self._memory, spare, -1, -1)
            if copy is None:
                return []
            copies[slot] = copy
        for slot, start in starts.items():
            llama_cpp.llama_memory_seq_rm(self._memory, slot, start, -1)
        lost = []
        for slot, copy in copies.items():
            if copy.bring_back(self._context, spare):
                llama_cpp.llama_memory_seq_cp(self._memory, spare, slot, starts[slot], -1)
            else:
                lost.append(slot)
            llama_cpp.llama_memory_seq_rm(self._memory, spare, -1, -1)
        return lost

    def open(self, slot: int, prompt: list[int], sampling: Sampling, grammar: Gbnf | None) -> None:
        """Make the slot's sampler and show it the prompt."""
        values = resolve(self._parameters, sampling, context_size=self.slot_context_size)
        size = self._model.vocabulary_size
        plan = plan_of(values, vocabulary_size=size)
        sampler = Sampler(plan, vocabulary_size=size, grammar=self._compile(grammar))
        sampler.accept_prompt(prompt)
        self._samplers[slot] = sampler
        if sampling.top_logprobs is not None:
            self._top_logprobs[slot] = sampling.top_logprobs

    def release(self, slot: int) -> None:
        """Free the slot's sampler; its cells stay."""
        self._top_logprobs.pop(slot, None)
        self._drawn.pop(slot, None)
        sampler = self._samplers.pop(slot, None)
        if sampler is not None:
            sampler.close()

    def decode(self, chunks: Sequence[Chunk]) -> DecodeOutcome:
        """Decode all chunks, and wait for it: a GPU may still compute after the call."""
        prompt, rest = self._tile_apart(chunks)
        outcome = self._decode(prompt)
        if rest and outcome is DecodeOutcome.DECODED:
            outcome = self._decode(rest)
            if outcome is not DecodeOutcome.DECODED:
                self._undo(prompt)
        return outcome

    def _tile_apart(self, chunks: Sequence[Chunk]) -> tuple[Sequence[Chunk], Sequence[Chunk]]:
        """The chunks of one ``llama_decode``, and those of another after it.

        On a CPU each row of a tile is compared to the cells of all rows in it (three answers
        behind 1,330 cells each and 61 rows of a prompt behind 700: 1,033 ms together, 695 ms
        one after the other). What has no output of use can go first. With cells of its own for
        each slot, a tile stays whole that way: beside an answer llama.cpp computes one row of it,
        and the rest by itself.
        """
        if not (self.runs_on_cpu and self._has_plain_cells):
            return chunks, ()
        tiles = [c for c in chunks if c.tokens >= TILE_TOKENS and not c.is_last]
        if not tiles:  # as in most steps
            return chunks, ()
        rest = [chunk for chunk in chunks if chunk not in tiles]
        if sum(chunk.sequence.decoded for chunk in rest) < TILES_FROM_CELLS:
            return chunks, ()
        return tiles, rest

    def _decode(self, chunks: Sequence[Chunk]) -> DecodeOutcome:
        if not self.kv_unified:
            # What llama.cpp computes at once are streams that follow one another.
            chunks = sorted(chunks, key=lambda chunk: chunk.sequence.slot)
        runs = []
        for chunk in chunks:
            sequence = chunk.sequence
            start = sequence.decoded
            tokens = sequence.tokens[start : start + chunk.tokens]
            runs.append((sequence.slot, sequence.position, tokens))
        outcome = self._batch.decode(self._context, runs, self._output_index)
        llama_cpp.llama_synchronize(self._context)
        return outcome

    def _undo(self, chunks: Iterable[Chunk]) -> None:
        """Drop the cells of chunks that were decoded."""
        for chunk in chunks:
            sequence = chunk.sequence
            llama_cpp.llama_memory_seq_rm(self._memory, sequence.slot, sequence.position, -1)

    def encode_image(self, image: PlacedImage) -> bool:
        """See :meth:`Projector.encode`."""
        return self._projector is not None and self._projector.encode(image)

    def decode_image(self, slot: int, position: int, image: PlacedImage) -> DecodeOutcome:
        """See :meth:`Projector.decode`."""
        assert self._projector is not None
        outcome = self._projector.decode(
            self._context, image, slot=slot, position=position, n_batch=self.n_batch
        )
        llama_cpp.llama_synchronize(self._context)
        return outcome

    def sample(self, slots: Sequence[int]) -> list[int | NoToken]:
        """Draw the next token of each slot from the logits of the last batch."""
        return [self._sample(slot) for slot in slots]

    def logprobs(self, slot: int) -> TokenLogprobs | None:
        """See :class:`Engine`. It takes a walk over the logits of the whole vocabulary."""
        top = self._top_logprobs.get(slot)
        if top is None:
            return None
        return token_logprobs(self._logits(slot), self._drawn[slot], top)

    @property
    def pooling_type(self) -> PoolingType:
        """How the context pools; resolved where the parameters leave it to the model."""
        return _POOLING_NAMES.get(llama_cpp.llama_pooling_type(self._context), "Unspecified")

    def embed(self, documents: Sequence[list[int]]) -> list[Vector]:
        """One vector for each document, all decoded in one batch from empty cells."""
        if self._memory:
            llama_cpp.llama_memory_clear(self._memory, False)
        runs = [(slot, 0, tokens) for slot, tokens in enumerate(documents) if tokens]
        if len(runs) < len(documents):
            raise EmbeddingFailed("a document has no tokens")
        outcome = self._batch.decode(self._context, runs, self._output_index, all_outputs=True)
        if outcome is not DecodeOutcome.DECODED:
            raise EmbeddingFailed(f"decoding failed: {outcome.name}")
        llama_cpp.llama_synchronize(self._context)
        return [self._vector(slot) for slot, _, _ in runs]

    def close(self) -> None:
        """Free the samplers and the context."""
        for slot in list(self._samplers):
            self.release(slot)
        self._swapped.clear()
        context, self._context = self._context, None
        if context:
            llama_cpp.llama_free(context)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _vector(self, slot: int) -> Vector:
        pooling = self.pooling_type
        if pooling == "None":  # one vector per token: the last has seen the whole document
            numbers = llama_cpp.llama_get_embeddings_ith(self._context, self._output_index[slot])
        else:
            numbers = llama_cpp.llama_get_embeddings_seq(self._context, slot)
        if not numbers:
            raise EmbeddingFailed(f"the model makes no embeddings with pooling {pooling}")
        size = self._model.rank_outputs if pooling == "Rank" else self._model.embedding_size
        return np.ctypeslib.as_array(numbers, (size,)).copy()

    def _compile(self, grammar: Gbnf | None) -> GrammarSampler | None:
        if grammar is None:
            return None
        native_log.first_error = None
        try:
            return GrammarSampler(self._model.vocab, grammar)
        except SamplingFailed as error:
            raise GrammarRefused(native_log.first_error or str(error)) from error

    def _logits(self, slot: int) -> Logits:
        """Those that the last batch left for the slot; llama.cpp's own, until the next batch."""
        pointer: Any = llama_cpp.llama_get_logits_ith(self._context, self._output_index[slot])
        if not pointer:
            raise SamplingFailed("llama.cpp has no logits for it")
        numbers: Any = self._logits_type.from_address(ctypes.addressof(pointer.contents))
        return np.frombuffer(numbers, np.float32)

    def _sample(self, slot: int) -> int | NoToken:
        try:
            token = self._samplers[slot].sample(self._logits(slot), self._desk)
        except SamplingFailed as error:
            return NoToken(str(error))
        if slot in self._top_logprobs:
            self._drawn[slot] = token
        return token


class _Batch:
    """A reusable ``llama_batch`` over arrays of ours, filled by slices instead of per token."""

    def __init__(self, size: int, slots: int) -> None:
        self._tokens = (llama_cpp.llama_token * size)()
        self._positions = (llama_cpp.llama_pos * size)()
        self._outputs = (ctypes.c_int8 * size)()
        one_sequence_each = (ctypes.c_int32 * size)(*[1] * size)
        self._slots = [(llama_cpp.llama_seq_id * 1)(slot) for slot in range(slots)]
        pointer = ctypes.POINTER(llama_cpp.llama_seq_id)
        self._slot_pointers = [ctypes.cast(slot, pointer) for slot in self._slots]
        self._sequences = (pointer * size)()
        # ctypes keeps arrays alive that a structure's pointer fields were set from.
        self._struct = llama_cpp.llama_batch(
            n_tokens=0,
            token=self._tokens,
            embd=None,
            pos=self._positions,
            n_seq_id=one_sequence_each,
            seq_id=self._sequences,
            logits=self._outputs,
        )

    def decode(
        self,
        context: Any,
        runs: Sequence[tuple[int, int, list[int]]],
        output_index: dict[int, int],
        *,
        all_outputs: bool = False,
    ) -> DecodeOutcome:
        """Decode runs of ``(slot, position of the first, tokens)``.

        The last token of each run has an output, or all have; ``output_index`` learns the
        place of the last by slot.
        """
        end = 0
        output_index.clear()
        for slot, position, tokens in runs:
            begin, end = end, end + len(tokens)
            self._tokens[begin:end] = tokens
            self._positions[begin:end] = range(position, position + len(tokens))
            self._sequences[begin:end] = [self._slot_pointers[slot]] * len(tokens)
            self._outputs[begin:end] = [int(all_outputs)] * len(tokens)
            self._outputs[end - 1] = 1
            output_index[slot] = end - 1
        self._struct.n_tokens = end
        return DecodeOutcome(llama_cpp.llama_decode(context, self._struct))


def _n_batch(parameters: InferenceParameters, sequences: int) -> int:
    """One token of each slot and one of a prompt always fit: no slot waits for another."""
    return max(parameters.n_batch, sequences + 1)


def _context_params(parameters: InferenceParameters, *, sequences: int, threads: int) -> Any:
    params = llama_cpp.llama_context_default_params()
    # 0: what the model was trained with.
    params.n_ctx = _rounded_up(parameters.context_size, CONTEXT_STEP)
    params.n_batch = _n_batch(parameters, sequences)
    params.n_ubatch = min(params.n_batch, MAX_UBATCH)
    params.n_seq_max = sequences
    params.n_threads = threads
    params.n_threads_batch = threads
    params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO
    params.type_k = _KV_TYPES[parameters.k_cache_dtype]
    params.type_v = _KV_TYPES[parameters.v_cache_dtype]
    params.kv_unified = True
    params.no_perf = True
    # The whole of a sliding-window cache is kept: else a shared prefix may have lost the cells
    # that its last tokens look back on.
    params.swa_full = True
    if parameters.enable_embeddings:
        params.embeddings = True
        params.pooling_type = _POOLING_TYPES[parameters.pooling_type]
        # llama.cpp aborts while it reserves room for means, unless so many sequences go into its
        # largest batch, or into the context where that is smaller: a multiple of 256.
        params.n_seq_max = 1 << (sequences - 1).bit_length()
        params.n_batch = _rounded_up(params.n_batch, params.n_seq_max)
        # A document is pooled in one piece, and models that look both ways need it at once.
        params.n_ubatch = params.n_batch
    else:
        # No fewer than sequences, or llama.cpp aborts. 0 reserves for a whole batch.
        params.n_outputs_max = sequences
    return params


def _rounded_up(count: int, step: int) -> int:
    """The next multiple of ``step``, or the largest that 32 bits hold. 0 stays 0."""
    return min(-(-count // step) * step, U32_MAX // step * step)
