"""Texts fed to a transformer end to end, without padding.

Every token of a batch is a token of a text: nothing is computed for padding, and a product over all
tokens is one. Only attention knows where a text ends, so attention is ours: on a GPU torch's
attention for variable lengths, elsewhere text by text. The model itself stays transformers'.

Positions are given, not left to the model: it would count them on from one text to the next.
Source: sentence-transformers 5.5 did so for XLM-R with flash attention, and its vectors were wrong
(its pull request 3879).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from acidburn_assets.adapters.models import first_position

if TYPE_CHECKING:
    import torch

_ATTENTION = "acidburn_packed"

_TYPES = frozenset(["bert", "camembert", "roberta", "xlm-roberta"])
"""Model types whose tokens see all of their own text, know their place from `position_ids` alone,
and whose attention can be replaced. Source: their modules in transformers 5.23."""

_MIN_TOKENS = 8
"""Of a batch; texts are added and dropped again where it has fewer. Source: measured, products of
up to 3 rows are computed otherwise than larger ones, and differ in the last bits."""


def can_pack(transformer: Any) -> bool:
    """Whether a model's texts can be fed end to end.

    Args:
        transformer: the first module of a model of sentence-transformers.
    """
    return bool(transformer.auto_model.config.model_type in _TYPES)


def is_fast(device: str, dtype: str) -> bool:
    """Whether the device has attention for variable lengths in this number format.

    torch's for CUDA computes in two bytes only, on NVIDIA's GPUs from 8.0 on. Apple's has none, and
    no sum by texts.
    """
    import torch

    if device == "cpu":
        return True
    return (
        device.startswith("cuda")
        and dtype in ("float16", "bfloat16")
        and torch.version.hip is None
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


def prepare(transformer: Any) -> None:
    """Replaces the model's attention; from now on it reads what is packed, and nothing else."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(_ATTENTION, _attend)
    AttentionMaskInterface.register(_ATTENTION, _no_mask)
    transformer.auto_model.set_attn_implementation(_ATTENTION)


def encode_packed(
    transformer: Any, pooling: Any, inputs: Sequence[np.ndarray], *, device: str
) -> "torch.Tensor":
    """One vector per text, as the pooling of the model makes it.

    Args:
        transformer: prepared.
        pooling: the module behind it.
        inputs: token ids of each text, special tokens included  # (n_tokens,) int32
        device: of the model.

    Returns:
        (n, width) float32, on the device.
    """
    import torch

    config = transformer.auto_model.config
    n_texts = len(inputs)
    if sum(map(len, inputs)) < _MIN_TOKENS:
        inputs = [*inputs, *([inputs[0]] * _MIN_TOKENS)]
    lengths = np.fromiter(map(len, inputs), dtype=np.int64, count=len(inputs))  # (n,)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    # of every token its place in its own text  # (T,)
    places = np.arange(ends[-1]) - np.repeat(starts, lengths)
    positions = places + first_position(config.model_type, config.pad_token_id)
    bounds = np.concatenate([[0], ends]).astype(np.int32)  # (n + 1,)
    tokens = (
        transformer.auto_model(
            input_ids=upload(torch.from_numpy(np.concatenate(inputs).astype(np.int64)), device)[
                None
            ],
            position_ids=upload(torch.from_numpy(positions), device)[None],
            cu_seq_lens_q=upload(torch.from_numpy(bounds), device),
            max_length_q=int(lengths.max()),
        )
        .last_hidden_state[0]
        .float()
    )  # (T, width)
    return _pool(pooling, tokens, starts, lengths, device)[:n_texts]


def upload(values: "torch.Tensor", device: str) -> "torch.Tensor":
    """Values on the device; a GPU copies them while we go on."""
    if not device.startswith("cuda"):
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def _pool(
    pooling: Any, tokens: "torch.Tensor", starts: np.ndarray, lengths: np.ndarray, device: str
) -> "torch.Tensor":
    """(n, width) of all texts' tokens, (T, width)."""
    import torch

    if pooling.pooling_mode == "cls":
        first: torch.Tensor = tokens.index_select(0, upload(torch.from_numpy(starts), device))
        return first
    if pooling.pooling_mode == "mean":
        of_text = upload(torch.from_numpy(lengths), device)
        # lengths are ours: checking them would wait for the device
        pooled: torch.Tensor = torch.segment_reduce(tokens, "mean", lengths=of_text, unsafe=True)
        return pooled
    return torch.cat([_pool_alone(pooling, text) for text in torch.split(tokens, lengths.tolist())])


def _pool_alone(pooling: Any, tokens: "torch.Tensor") -> "torch.Tensor":
    """(1, width) of a text's (n_tokens, width)."""
    import torch

    mask = torch.ones((1, len(tokens)), dtype=torch.int64, device=tokens.device)
    features = pooling({"token_embeddings": tokens[None], "attention_mask": mask})
    pooled: torch.Tensor = features["sentence_embedding"]
    return pooled


def _no_mask(*_: object, **__: object) -> None:
    """Attention is told where texts end; there is nothing to mask."""


def _attend(
    module: Any,  # noqa: ARG001 - transformers' interface
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    attention_mask: None,  # noqa: ARG001 - transformers' interface
    *,
    cu_seq_lens_q: "torch.Tensor",
    max_length_q: int,
    scaling: float | None = None,
    **_: object,
) -> "tuple[torch.Tensor, None]":
    """Attention of every token to all tokens of its own text.

    Args:
        module: unused.
        query: (1, heads, T, head_dim); key and value too.
        key: see query.
        value: see query.
        attention_mask: none.
        cu_seq_lens_q: (n + 1,) int32, where texts begin and the last one ends.
        max_length_q: of the longest text.
        scaling: of the scores.

    Returns:
        (1, T, heads, head_dim), and no weights.
    """
    import torch

    if query.is_cuda:
        from torch.nn.attention.varlen import varlen_attn

        packed: Any = varlen_attn(
            query[0].transpose(0, 1),  # (T, heads, head_dim)
            key[0].transpose(0, 1),
            value[0].transpose(0, 1),
            cu_seq_lens_q,
            cu_seq_lens_q,
            max_length_q,
            max_length_q,
            scale=scaling,
            num_splits=1,  # a text's sums do not depend on its company
        )
        return packed[None], None
    lengths = cu_seq_lens_q.diff().tolist()
    texts = zip(*(torch.split(one, lengths, dim=2) for one in (query, key, value)), strict=True)
    # a CPU's attention is faster in float32. Source: measured, 2,048 tokens in texts of 70 (250):
    # 6.7 (13.8) ms against 8.1 (15.4) in bfloat16, widening included
    attended = [_attend_alone(q.float(), k.float(), v.float(), scaling) for q, k, v in texts]
    return torch.cat(attended, dim=2).transpose(1, 2), None


_PLAIN_TOKENS = 128
"""Up to so many tokens, a text's attention is two products and a softmax.

Source: measured on one core, 12 heads of 32: 74 tokens .21 ms against .24 by torch's own function,
250 tokens 2.1 against 1.8."""


def _attend_alone(
    query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor", scaling: float | None
) -> "torch.Tensor":
    """Attention within one text, (1, heads, n_tokens, head_dim) float32 like its inputs."""
    import torch

    if query.shape[2] > _PLAIN_TOKENS:
        attended: torch.Tensor = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, scale=scaling
        )
        return attended
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    return torch.matmul(torch.softmax(torch.matmul(query * scale, key.mT), dim=-1), value)
