"""Writes tiny models with random weights: real GGUF files that load in milliseconds.

Llama architecture, one layer, a byte-level SentencePiece vocabulary. They say nothing
sensible, but tokenize, decode and sample like any other model.
"""

from pathlib import Path

import gguf
import numpy as np

WIDTH = 64
FEED_FORWARD = 64
BOS, EOS = 1, 2
FIRST_BYTE = 3
VOCABULARY = FIRST_BYTE + 256

TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def write_tiny_gguf(
    path: Path,
    *,
    chat_template: str | None = TEMPLATE,
    context_length: int = 512,
    add_bos: bool = True,
    architecture: str = "llama",
    heads: int = 2,
    metadata: dict[str, str] | None = None,
    seed: int = 1,
    tensors_per_file: int = 0,
) -> Path:
    """Write a model to ``path`` and return it. ``chat_template=None``: it has none.

    Up to two ``heads`` have the 32 values each that block-quantized KV types need. The
    architecture ``qwen2vl`` counts the positions of an image along two axes. With
    ``tensors_per_file``, ``tiny.gguf`` becomes ``tiny-00001-of-00003.gguf`` and so on.
    """
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=tensors_per_file)
    writer.add_name("tiny")
    writer.add_context_length(context_length)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // heads)
    if architecture == "qwen2vl":
        writer.add_rope_dimension_sections([4, 6, 6, 0])
    add_vocabulary(writer, add_bos=add_bos)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    for key, value in (metadata or {}).items():
        writer.add_string(key, value)

    random = np.random.default_rng(seed)

    def weights(name: str, *shape: int) -> None:
        writer.add_tensor(name, random.standard_normal(shape, dtype=np.float32) * 0.5)

    def ones(name: str) -> None:
        writer.add_tensor(name, np.ones(WIDTH, dtype=np.float32))

    weights("token_embd.weight", VOCABULARY, WIDTH)
    weights("output.weight", VOCABULARY, WIDTH)
    ones("output_norm.weight")
    ones("blk.0.attn_norm.weight")
    ones("blk.0.ffn_norm.weight")
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        weights(f"blk.0.{name}.weight", WIDTH, WIDTH)
    if architecture == "qwen2vl":
        for name in ("attn_q", "attn_k", "attn_v"):
            weights(f"blk.0.{name}.bias", WIDTH)
    weights("blk.0.ffn_gate.weight", FEED_FORWARD, WIDTH)
    weights("blk.0.ffn_up.weight", FEED_FORWARD, WIDTH)
    weights("blk.0.ffn_down.weight", WIDTH, FEED_FORWARD)
    finish(writer)
    return path


def add_vocabulary(writer: gguf.GGUFWriter, *, add_bos: bool = True) -> None:
    """One token for each byte, and three special ones."""
    tokens = [b"<unk>", b"<s>", b"</s>"]
    types = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    for byte in range(256):
        tokens.append(f"<0x{byte:02X}>".encode())
        types.append(gguf.TokenType.BYTE)
    assert len(tokens) == VOCABULARY
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(types)
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_add_bos_token(add_bos)
    writer.add_add_space_prefix(False)


def finish(writer: gguf.GGUFWriter) -> None:
    """Write all that was added."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_tiny_mmproj(
    path: Path,
    *,
    projection_width: int = WIDTH,
    image_size: int = 64,
    scale_factor: int = 2,
    projector: str = "idefics3",
    seed: int = 1,
) -> Path:
    """Write a multimodal projection to ``path`` and return it.

    A vision transformer of one layer with patches of 16 pixels. ``projector``:

    - ``idefics3``: images are cut into tiles of ``image_size`` pixels, with an overview
      first; each takes ``(image_size / 16 / scale_factor) ** 2`` tokens.
    - ``gemma3``: one image of ``image_size``, all of whose tokens see each other.
    - ``qwen2vl_merger``: any size, a token for every 32 by 32 pixels.
    """
    patch, width = 16, 32
    patches = (image_size // patch) ** 2
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_string("clip.projector_type", projector)
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.use_gelu", True)
    for key, value in {
        "image_size": image_size,
        "patch_size": patch,
        "embedding_length": width,
        "feed_forward_length": 2 * width,
        "block_count": 1,
        "projection_dim": projection_width,
        "attention.head_count": 2,
        "projector.scale_factor": scale_factor,
    }.items():
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])

    random = np.random.default_rng(seed)

    def weights(name: str, *shape: int) -> None:
        writer.add_tensor(name, random.standard_normal(shape, dtype=np.float32) * 0.2)

    weights("v.patch_embd.weight", width, 3, patch, patch)
    if projector == "qwen2vl_merger":
        weights("v.patch_embd.weight.1", width, 3, patch, patch)
    else:
        weights("v.patch_embd.bias", width)
        weights("v.position_embd.weight", patches, width)
    for name in ("ln1", "ln2"):
        weights(f"v.blk.0.{name}.weight", width)
        weights(f"v.blk.0.{name}.bias", width)
    for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
        weights(f"v.blk.0.{name}.weight", width, width)
        weights(f"v.blk.0.{name}.bias", width)
    weights("v.blk.0.ffn_up.weight", 2 * width, width)
    weights("v.blk.0.ffn_up.bias", 2 * width)
    weights("v.blk.0.ffn_down.weight", width, 2 * width)
    weights("v.blk.0.ffn_down.bias", width)
    weights("v.post_ln.weight", width)
    weights("v.post_ln.bias", width)
    if projector == "gemma3":
        weights("mm.input_projection.weight", width, projection_width)
        weights("mm.soft_emb_norm.weight", width)
    elif projector == "qwen2vl_merger":
        weights("mm.0.weight", 4 * width, 4 * width)
        weights("mm.0.bias", 4 * width)
        weights("mm.2.weight", projection_width, 4 * width)
        weights("mm.2.bias", projection_width)
    else:
        weights("mm.model.fc.weight", projection_width, width * scale_factor**2)
    finish(writer)
    return path
