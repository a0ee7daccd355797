"""From a :class:`Load` to a running engine, or to the issues that the agent reports."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final, NamedTuple

from llama_cpp import llama_cpp

from paddler.agent.worker.bounded import BoundedProcess
from paddler.agent.worker.chat_template import TemplateCompileError
from paddler.agent.worker.engine_llama import CONTEXT_STEP, LlamaEngine, Model, device_names
from paddler.agent.worker.engine_log import EngineError
from paddler.agent.worker.markers import probe
from paddler.agent.worker.prompts import PromptMaker, Writing
from paddler.agent.worker.vision import Projector
from paddler.messages.agents import AgentIssue, ModelPath, SlotError, TemplateError
from paddler.messages.worker import Load, Opened, Progress, Ready

_PROGRESS_EVERY_S: Final = 0.1

# Processor time for all images of a request. A large photo takes 0.1 s.
_IMAGES_DEADLINE_S: Final = 5.0

_UNDIVIDED: Final = (
    "--no-kv-unified has no effect on this model: recurrent ones have no cells to divide, and "
    "slots of those with a sliding window could not share what prompts begin with"
)

# Pixels either way of images that nothing sees: only what is wrong with them is told.
_UNSEEN_SIDE: Final = 64


class LoadRefused(Exception):
    """The model cannot run. ``issues`` are for operators, the message is for the log."""

    def __init__(self, reason: str, *issues: AgentIssue) -> None:
        super().__init__(reason)
        self.issues = issues


class Loaded(NamedTuple):
    """What serves requests from now on."""

    engine: LlamaEngine
    prompts: PromptMaker | None  # None: it makes embeddings, no text
    ready: Ready


@contextmanager
def loaded(load: Load, report: Callable[[Progress | Opened], None]) -> Iterator[Loaded]:
    """Load, warm up, and free all at the end. Raises :class:`LoadRefused`.

    ``report`` is told how far it is; what it raises ends the loading and is raised here.
    """
    notes = _notes(load)
    path = ModelPath(load.model_path)
    with (
        _open_model(load, report) as model,
        _open_projector(load, model) as projector,
        BoundedProcess(None, deadline_s=_IMAGES_DEADLINE_S) as images,
        _open_template(load, model) as template,
        _open_tools_template(load, model, notes) as tools_template,
    ):
        report(Opened(metadata=model.metadata(), special_tokens=model.special_tokens))
        if model.has_encoder and not load.parameters.enable_embeddings:
            raise LoadRefused(
                f"{load.model_path} is an encoder-decoder model, which cannot continue a prompt",
                AgentIssue(model_cannot_be_loaded=path),
            )
        prompts = None
        if template is not None and not load.parameters.enable_embeddings:
            side = _UNSEEN_SIDE if projector is None else load.parameters.image_resize_to_fit
            prompts = PromptMaker(
                load.agent_label,
                template.process,
                prepare_images=partial(images.prepare_images, max_side=side),
                sees_images=projector is not None,
                form=probe(template.process, template.source),
                with_tools=tools_template,
                checks=template.process,
            )
        with _blaming_slots(load):
            engine = LlamaEngine(
                model,
                parameters=load.parameters,
                slots=load.slots,
                threads=load.threads,
                projector=projector,
                kv_unified=load.kv_unified,
            )
        is_for_text = not load.parameters.enable_embeddings
        if is_for_text and engine.kv_unified and not load.kv_unified and load.slots > 1:
            notes.append(_UNDIVIDED)
        asked = load.parameters.context_size
        if not engine.kv_unified and asked and engine.context_size >= asked + CONTEXT_STEP:
            notes.append(
                f"context_size is {asked}, but the context has {engine.context_size} tokens: with "
                f"--no-kv-unified each of the {load.slots} slots has a multiple of {CONTEXT_STEP}"
            )
        with engine:
            if engine.has_memory:
                report(Progress("warming", 0.0))
                with _blaming_slots(load):
                    engine.warm_up()
                report(Progress("warming", 1.0))
            elif not load.parameters.enable_embeddings:
                raise LoadRefused(
                    f"{load.model_path} has no KV cache: it makes embeddings, not text",
                    AgentIssue(model_cannot_be_loaded=path),
                )
            ready = Ready(
                slots=load.slots,
                context_size=engine.context_size,
                slot_context_size=engine.slot_context_size,
                devices=device_names(),
                notes=notes,
            )
            yield Loaded(engine, prompts, ready)


def _open_model(load: Load, report: Callable[[Progress | Opened], None]) -> Model:
    reported_at = 0.0
    stopped_by: BaseException | None = None

    def on_progress(fraction: float) -> bool:
        nonlocal reported_at, stopped_by
        now = time.monotonic()
        if fraction < 1.0 and now - reported_at < _PROGRESS_EVERY_S:
            return True
        reported_at = now
        try:
            report(Progress("loading", fraction))
        except BaseException as error:  # Nothing may pass through llama.cpp's frames.
            stopped_by = error
            return False
        return True

    try:
        return Model(
            load.model_path, n_gpu_layers=load.parameters.n_gpu_layers, on_progress=on_progress
        )
    except EngineError as error:
        if stopped_by is not None:
            raise stopped_by from None
        raise LoadRefused(
            str(error), AgentIssue(model_cannot_be_loaded=ModelPath(load.model_path))
        ) from error


@contextmanager
def _open_projector(load: Load, model: Model) -> Iterator[Projector | None]:
    """What lets the model see, if there is one. Embeddings are of text alone."""
    path = load.projection_path
    if path is None or load.parameters.enable_embeddings:
        yield None
        return
    try:
        projector = Projector(
            path,
            model.handle,
            threads=load.threads,
            use_gpu=load.parameters.n_gpu_layers != 0,
        )
    except EngineError as error:
        issue = AgentIssue(multimodal_projection_cannot_be_loaded=ModelPath(path))
        raise LoadRefused(str(error), issue) from error
    with projector:
        yield projector


@contextmanager
def _blaming_slots(load: Load) -> Iterator[None]:
    """Slots are one pool: what keeps one from starting keeps all."""
    try:
        yield
    except EngineError as error:
        issues = [
            AgentIssue(slot_cannot_start=SlotError(error=str(error), slot_index=slot))
            for slot in range(load.slots)
        ]
        raise LoadRefused(str(error), *issues) from error


class _Template(NamedTuple):
    """A template and the process that renders it."""

    source: str
    process: BoundedProcess


@contextmanager
def _open_template(load: Load, model: Model) -> Iterator[_Template | None]:
    """The template, compiled; ``None``: none is needed."""
    source = load.chat_template
    if source is None and not load.parameters.enable_embeddings:
        source = model.chat_template
    if source is None and load.parameters.enable_embeddings:
        yield None
        return
    path = ModelPath(load.model_path)
    if source is None:
        raise LoadRefused(
            f"{load.model_path} has no chat template; set one in the desired state",
            AgentIssue(unable_to_find_chat_template=path),
        )
    try:
        process = BoundedProcess(source, model.special_tokens)
    except TemplateCompileError as error:
        issue = TemplateError(error=str(error), model_path=path, template_content=source)
        raise LoadRefused(
            f"the chat template does not compile: {error}",
            AgentIssue(chat_template_does_not_compile=issue),
        ) from error
    with process:
        yield _Template(source, process)


@contextmanager
def _open_tools_template(load: Load, model: Model, notes: list[str]) -> Iterator[Writing | None]:
    """What requests with tools are written by, where the file has a template just for them.

    Its faults go to ``notes``: the other template serves.
    """
    source = model.tools_template
    if source is None or load.chat_template is not None or load.parameters.enable_embeddings:
        yield None
        return
    try:
        process = BoundedProcess(source, model.special_tokens)
    except TemplateCompileError as error:
        notes.append(
            f"the model's chat template for tools does not compile and is not used: {error}"
        )
        yield None
        return
    with process:
        yield Writing(process, probe(process, source))


def _notes(load: Load) -> list[str]:
    layers = load.parameters.n_gpu_layers
    if layers == 0 or llama_cpp.llama_supports_gpu_offload():
        return []
    return [
        f"n_gpu_layers is {layers}, but this build of llama-cpp-python has no GPU support and runs "
        "all layers on the CPU: install a build for CUDA, ROCm, Vulkan or Metal, or set it to 0"
    ]
