"""A classifier with the work left out that cannot change its logits; traced instead of the original.

Each rewrite is tried on real texts, and left out with a reason where it does not apply or shows in the logits.
Knows nothing of files; the parts of an architecture stand in `anatomy.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from onnx import TensorProto
from torch import Tensor, nn
from transformers import PreTrainedModel

from export.anatomy import ClassifierParts, LayerParts, dissect
from export.errors import ExportError

CONSTANT_INPUTS = "constant_inputs"
PACKED_PROJECTIONS = "packed_projections"
ONE_ATTENTION = "one_attention_operator"
FIRST_POSITION = "first_position_only"
REWRITES = (CONSTANT_INPUTS, PACKED_PROJECTIONS, ONE_ATTENTION, FIRST_POSITION)
MAX_CHANGE = 1e-5
ATTENTION = "potstill::Attention"  # ONNX has it since an opset that torch does not write: `graph.py` renames it
Batch = tuple[Tensor, Tensor]  # input_ids and attention_mask, both (texts, tokens) int64


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What became of one rewrite; `change` is the largest difference of a logit, None when it was not tried."""

    name: str
    applied: bool
    change: float | None
    reason: str


def operate(
    model: PreTrainedModel, batches: Sequence[Batch], names: Sequence[str] = REWRITES, longest: int | None = None
) -> tuple[nn.Module, list[Rewrite]]:
    """Return a module from ids and mask to logits with every rewrite of `names` that holds, and what was done.

    No text has more than `longest` tokens (None: than the model takes).

    A rewrite holds when no logit of `batches` changes by `MAX_CHANGE`.

    `constant_inputs`: positions and token types are a table, not inputs. `packed_projections`: query, key and
    value are one product. `one_attention_operator`: ONNX's Attention stands for its dozen steps.
    `first_position_only`: the last layer asks and feeds forward for position 0, which is all that the head reads.
    """
    plain = _LogitsOnly(model).eval()
    try:
        parts = dissect(model)
    except ExportError as error:
        return plain, [Rewrite(name, False, None, str(error)) for name in names]
    wanted = torch.cat([_run(plain, batch) for batch in batches])
    chosen: frozenset[str] = frozenset()
    module: nn.Module = plain
    report = []
    for name in names:
        candidate = CompactClassifier(parts, chosen | {name}, longest).eval()
        change = float((torch.cat([_run(candidate, batch) for batch in batches]) - wanted).abs().max())
        if holds := change < MAX_CHANGE:  # False for a change that is no number
            module, chosen = candidate, chosen | {name}
        report.append(Rewrite(name, holds, change, "" if holds else f"changes a logit by {change:.2g}"))
    return module, report


class CompactClassifier(nn.Module):
    """The logits of a dissected classifier with the given `rewrites`, equal but for rounding."""

    def __init__(self, parts: ClassifierParts, rewrites: frozenset[str], longest: int | None = None) -> None:
        """Borrow the weights of `parts`; positions beyond `longest` are left out."""
        super().__init__()
        self.embeddings = _Table(parts, longest) if CONSTANT_INPUTS in rewrites else parts.embeddings
        self.project = parts.project or nn.Identity()
        last = len(parts.layers) - 1
        self.layers = nn.ModuleList(
            _Layer(layer, parts.heads, rewrites if index == last else rewrites - {FIRST_POSITION})
            for index, layer in enumerate(parts.layers)
        )
        self.head = parts.head

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits (batch, labels) of token ids and a 0/1 mask, both (batch, sequence) int64."""
        hidden = self.project(self.embeddings(input_ids))
        keys, pairs = _Mask.apply(attention_mask)  # type: ignore[no-untyped-call]
        for layer in self.layers:
            hidden = layer(hidden, keys if layer.is_first_only else pairs)
        logits: Tensor = self.head(hidden)
        return logits


class _LogitsOnly(nn.Module):
    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


class _Table(nn.Module):
    def __init__(self, parts: ClassifierParts, longest: int | None) -> None:
        super().__init__()
        given = parts.embeddings
        self.words = given.word_embeddings
        self.norm = given.LayerNorm
        table = given.position_embeddings.weight.detach()[parts.first_position :][:longest]
        if hasattr(given, "token_type_embeddings"):
            table = table + given.token_type_embeddings.weight.detach()[0]
        self.positions = nn.Parameter(table)

    def forward(self, input_ids: Tensor) -> Tensor:
        words = self.words(input_ids)
        normalised: Tensor = self.norm(words + self.positions[: input_ids.shape[1]])
        return normalised


class _Layer(nn.Module):
    def __init__(self, parts: LayerParts, heads: int, rewrites: frozenset[str]) -> None:
        super().__init__()
        self.attended, self.attended_norm = parts.attended, parts.attended_norm
        self.widen, self.activate = parts.widen, parts.activate
        self.narrow, self.narrow_norm = parts.narrow, parts.narrow_norm
        self.heads = heads
        self.is_first_only = FIRST_POSITION in rewrites
        self.is_one_operator = ONE_ATTENTION in rewrites
        projections = (parts.query, parts.key, parts.value)
        self.query = parts.query if self.is_first_only else None
        sharing = projections[1:] if self.is_first_only else projections
        self.sizes = [part.out_features for part in sharing]
        self.shared = nn.ModuleList([_side_by_side(*sharing)] if PACKED_PROJECTIONS in rewrites else sharing)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        asking = hidden[:, :1] if self.is_first_only else hidden
        query, key, value = self._project(asking, hidden)
        if self.is_one_operator:
            context = cast(Tensor, _Attention.apply(query, key, value, mask, self.heads))  # type: ignore[no-untyped-call]
        else:
            context = _attend(query, key, value, mask, self.heads)
        attended = self.attended_norm(self.attended(context) + asking)
        fed: Tensor = self.narrow_norm(self.narrow(self.activate(self.widen(attended))) + attended)
        return fed

    def _project(self, asking: Tensor, hidden: Tensor) -> tuple[Tensor, ...]:
        found = tuple(part(hidden) for part in self.shared)
        if len(found) < len(self.sizes):
            found = found[0].split(self.sizes, dim=-1)
        return found if self.query is None else (self.query(asking), *found)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, heads: int) -> Tensor:
    size = query.shape[-1] // heads
    by_head = [part.view(part.shape[0], part.shape[1], heads, size).transpose(1, 2) for part in (query, key, value)]
    scores = by_head[0] @ by_head[1].transpose(-1, -2) * size**-0.5
    # Softmax turns -10,000 into an exact 0.
    context: Tensor = scores.masked_fill(~mask, -10_000.0).softmax(dim=-1) @ by_head[2]
    return context.transpose(1, 2).reshape(query.shape)


class _Mask(torch.autograd.Function):
    """A 0/1 mask (batch, keys) as booleans (batch, 1, 1, keys) for one query and (batch, 1, keys, keys) for as many.

    Traced step by step it would be a dozen nodes, and onnxruntime's Attention does not broadcast queries.
    """

    @staticmethod
    def forward(context: Any, mask: Tensor) -> tuple[Tensor, Tensor]:
        keys = mask.bool()[:, None, None, :]
        return keys, keys.expand(-1, -1, mask.shape[1], -1).clone()

    @staticmethod
    def symbolic(graph: Any, mask: Any) -> tuple[Any, Any]:
        one, axes = (graph.op("Constant", value_t=torch.tensor(values)) for values in ([1], [1, 2]))
        keys = graph.op("Unsqueeze", graph.op("Cast", mask, to_i=TensorProto.BOOL), axes)
        length = graph.op("Shape", mask, start_i=1, end_i=2)
        return keys, graph.op("Expand", keys, graph.op("Concat", one, one, length, one, axis_i=0))


class _Attention(torch.autograd.Function):
    """`_attend`, written to ONNX as the one operator that it has for it."""

    @staticmethod
    def forward(context: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, heads: int) -> Tensor:
        return _attend(query, key, value, mask, heads)

    @staticmethod
    def symbolic(graph: Any, query: Any, key: Any, value: Any, mask: Any, heads: int) -> Any:
        found = graph.op(ATTENTION, query, key, value, mask, q_num_heads_i=heads, kv_num_heads_i=heads)
        found.setType(query.type())
        return found


def _side_by_side(*parts: nn.Linear) -> nn.Linear:
    packed = nn.Linear(parts[0].in_features, sum(part.out_features for part in parts))
    packed.weight = nn.Parameter(torch.cat([part.weight.detach() for part in parts]))
    packed.bias = nn.Parameter(torch.cat([part.bias.detach() for part in parts]))
    return packed


def _run(module: nn.Module, batch: Batch) -> Tensor:
    with torch.no_grad():
        logits: Tensor = module(*batch)
    return logits
