"""Tiny models with random weights that remember otherwise than by a plain KV cache.

- ``mamba``: a state per sequence, and nothing of the tokens that made it.
- ``lfm2``: a layer with such a state, then one with a KV cache.
- ``gemma3``: five layers that look back on ``WINDOW`` tokens, then one on all.
"""

from pathlib import Path

import gguf
import numpy as np

from tests.tiny_gguf import TEMPLATE, VOCABULARY, add_vocabulary, finish

WIDTH = 64
WINDOW = 16
RECURRENT = ("mamba", "lfm2")
KINDS = (*RECURRENT, "gemma3")

_FEED_FORWARD = 64
_HEADS = 2
_HEAD_WIDTH = WIDTH // _HEADS
_INNER = 2 * WIDTH
_STATE = 16
_STEP_RANK = 4
_CONVOLVED = 4


def write_tiny_memory(path: Path, kind: str, *, context_length: int = 512, seed: int = 1) -> Path:
    """Write a model of one of ``KINDS`` to ``path`` and return it."""
    layers = {"mamba": 2, "lfm2": 2, "gemma3": 6}[kind]
    writer = gguf.GGUFWriter(path, kind)
    writer.add_name(f"tiny {kind}")
    writer.add_context_length(context_length)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(layers)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_chat_template(TEMPLATE)
    add_vocabulary(writer)

    random = np.random.default_rng(seed)

    def weights(name: str, *shape: int, scale: float = 0.3) -> None:
        writer.add_tensor(name, random.standard_normal(shape, dtype=np.float32) * scale)

    def ones(name: str, width: int = WIDTH) -> None:
        writer.add_tensor(name, np.ones(width, dtype=np.float32))

    def feed_forward(layer: str) -> None:
        ones(f"{layer}.ffn_norm.weight")
        weights(f"{layer}.ffn_gate.weight", _FEED_FORWARD, WIDTH)
        weights(f"{layer}.ffn_up.weight", _FEED_FORWARD, WIDTH)
        weights(f"{layer}.ffn_down.weight", WIDTH, _FEED_FORWARD)

    def attention(layer: str) -> None:
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            weights(f"{layer}.{name}.weight", WIDTH, WIDTH)
        ones(f"{layer}.attn_q_norm.weight", _HEAD_WIDTH)
        ones(f"{layer}.attn_k_norm.weight", _HEAD_WIDTH)

    def selective_state(layer: str) -> None:
        weights(f"{layer}.ssm_in.weight", 2 * _INNER, WIDTH)
        weights(f"{layer}.ssm_conv1d.weight", _INNER, _CONVOLVED)
        weights(f"{layer}.ssm_conv1d.bias", _INNER)
        weights(f"{layer}.ssm_x.weight", _STEP_RANK + 2 * _STATE, _INNER)
        weights(f"{layer}.ssm_dt.weight", _INNER, _STEP_RANK)
        weights(f"{layer}.ssm_dt.bias", _INNER)
        # What it knows fades: all of them are negative.
        fading = -np.exp(random.standard_normal((_INNER, _STATE), dtype=np.float32))
        writer.add_tensor(f"{layer}.ssm_a", fading)
        ones(f"{layer}.ssm_d", _INNER)
        weights(f"{layer}.ssm_out.weight", WIDTH, _INNER)

    def short_convolution(layer: str) -> None:
        weights(f"{layer}.shortconv.conv.weight", WIDTH, _CONVOLVED)
        weights(f"{layer}.shortconv.in_proj.weight", 3 * WIDTH, WIDTH)
        weights(f"{layer}.shortconv.out_proj.weight", WIDTH, WIDTH)

    weights("token_embd.weight", VOCABULARY, WIDTH)
    weights("output.weight", VOCABULARY, WIDTH)
    ones("token_embd_norm.weight" if kind == "lfm2" else "output_norm.weight")
    for index in range(layers):
        layer = f"blk.{index}"
        ones(f"{layer}.attn_norm.weight")
        if kind == "mamba":
            selective_state(layer)
            continue
        feed_forward(layer)
        if kind == "lfm2" and index == 0:
            short_convolution(layer)
            continue
        attention(layer)
        if kind == "gemma3":
            ones(f"{layer}.post_attention_norm.weight")
            ones(f"{layer}.post_ffw_norm.weight")

    if kind == "mamba":
        writer.add_feed_forward_length(0)
        writer.add_head_count(0)
        writer.add_ssm_conv_kernel(_CONVOLVED)
        writer.add_ssm_inner_size(_INNER)
        writer.add_ssm_state_size(_STATE)
        writer.add_ssm_time_step_rank(_STEP_RANK)
    else:
        writer.add_feed_forward_length(_FEED_FORWARD)
        writer.add_head_count(_HEADS)
        writer.add_head_count_kv([0, _HEADS] if kind == "lfm2" else _HEADS)
        writer.add_rope_dimension_count(_HEAD_WIDTH)
    if kind == "lfm2":
        writer.add_shortconv_l_cache(_CONVOLVED)
    if kind == "gemma3":
        writer.add_key_length(_HEAD_WIDTH)
        writer.add_value_length(_HEAD_WIDTH)
        writer.add_sliding_window(WINDOW)
    finish(writer)
    return path
