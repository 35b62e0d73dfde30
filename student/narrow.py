"""Make a BERT-like classifier narrower by projecting its weights, so that it begins near what it was.

Hidden states are projected onto their principal directions, heads and feed-forward units are chosen by how much
they contribute, what is left out is replaced by its mean. All of that is measured on a sample of token rows.
Knows nothing of labels and of training.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from student.errors import StudentError

Rows = Sequence[Sequence[int]]
_MOST_STATES = 8_000  # token positions that the statistics of each place are taken from


@dataclass(frozen=True, slots=True)
class Basis:
    """Orthonormal `directions` (width before, width after) and the mean of the states before, (width before,)."""

    directions: Tensor
    mean: Tensor

    def lost(self) -> Tensor:
        """Return the part of the mean that no direction holds."""
        return self.mean - self.directions @ (self.directions.T @ self.mean)


def narrow(wide: PreTrainedModel, student: PreTrainedModel, sample: Rows) -> None:
    """Fill the narrower `student` with the projected weights of `wide`, which has as many layers.

    `student.last_basis` then says how its last hidden states are read, for `adopt_head`. Raises StudentError when
    the architecture is not like BERT's, heads differ in size, or there is no sample to measure on.
    """
    _check(wide, student, sample)
    places = _places(wide)
    seen = _watch(wide, places, sample)
    width = student.config.hidden_size
    directions = _directions(torch.cat([seen[name].states for name in places]), width)
    bases = {name: Basis(directions, seen[name].states.mean(dim=0)) for name in places}
    with torch.no_grad():
        _narrow_embeddings(wide.base_model.embeddings, student.base_model.embeddings, directions)
        source = "embeddings"
        for index, (old, new) in enumerate(zip(_layers(wide), _layers(student), strict=True)):
            middle, end = f"{index}.attended", f"{index}.fed"
            _narrow_attention(old, new, bases[source], seen[middle].units)
            _narrow_feed_forward(old, new, bases[middle], seen[end].units)
            source = end
        for name, norm in _places(student).items():
            _fit_norm(norm, seen[name].sums @ directions, seen[name].states @ directions)
        if (pooler := getattr(wide.base_model, "pooler", None)) is not None:
            _project(pooler.dense, student.base_model.pooler.dense, bases[source], directions)
    student.last_basis = bases[source]


@dataclass(slots=True)
class _Seen:
    """What went through one normalisation: its input and output, and what the product before it read."""

    sums: Tensor
    states: Tensor
    units: Tensor


def _check(wide: PreTrainedModel, student: PreTrainedModel, sample: Rows) -> None:
    try:
        first = _layers(wide)[0]
        known = all(hasattr(first, part) for part in ("attention", "intermediate", "output"))
        known = known and first.attention.self.query.in_features == wide.config.hidden_size
        known = known and wide.base_model.embeddings.word_embeddings.embedding_dim == wide.config.hidden_size
    except (AttributeError, IndexError):
        known = False
    if not known:
        raise StudentError(
            f"found {type(wide).__name__}, but only classifiers built like BERT can be made narrower; "
            "remove student.width, heads and intermediate, or set student.init to config"
        )
    for name in ("hidden_size", "intermediate_size", "num_attention_heads"):
        there, wanted = getattr(wide.config, name), getattr(student.config, name)
        if wanted > there:
            raise StudentError(f"found {name} {wanted}, wanted at most the {there} that there are to copy")
    sizes = [model.config.hidden_size // model.config.num_attention_heads for model in (wide, student)]
    if sizes[0] != sizes[1]:
        raise StudentError(
            f"found heads of {sizes[1]}, but those to copy are {sizes[0]} wide; set student.heads to student.width / "
            f"{sizes[0]}, and student.width to a multiple of it"
        )
    if not sample:
        raise StudentError("found no texts to measure a narrower student on, wanted at least one")


def _layers(model: PreTrainedModel) -> Sequence[Any]:
    layers: Sequence[Any] = model.base_model.encoder.layer
    return layers


def _places(model: PreTrainedModel) -> dict[str, nn.LayerNorm]:
    """Return every normalisation that hidden states leave, in order, by name."""
    found = {"embeddings": model.base_model.embeddings.LayerNorm}
    for index, layer in enumerate(_layers(model)):
        found[f"{index}.attended"] = layer.attention.output.LayerNorm
        found[f"{index}.fed"] = layer.output.LayerNorm
    return found


def _watch(model: PreTrainedModel, places: Mapping[str, nn.LayerNorm], sample: Rows) -> dict[str, _Seen]:
    """Run the sample row by row, unpadded, and return what was seen at each place, (positions, ...)."""
    sums: dict[str, list[Tensor]] = {name: [] for name in places}
    states: dict[str, list[Tensor]] = {name: [] for name in places}
    units: dict[str, list[Tensor]] = {name: [] for name in places}
    hooks = [norm.register_forward_hook(_keeper(sums[name], states[name])) for name, norm in places.items()]
    for index, layer in enumerate(_layers(model)):
        for name, part in ((f"{index}.attended", layer.attention.output), (f"{index}.fed", layer.output)):
            hooks.append(part.dense.register_forward_hook(_keeper(units[name])))
    with torch.no_grad():
        for row in _enough(sample):
            model.eval()(input_ids=torch.tensor([list(row)]))
    for hook in hooks:
        hook.remove()
    empty = torch.empty(0)
    return {
        name: _Seen(torch.cat(sums[name]), torch.cat(states[name]), torch.cat(units[name]) if units[name] else empty)
        for name in places
    }


def _keeper(inputs: list[Tensor], outputs: list[Tensor] | None = None) -> Callable[..., None]:
    def keep(module: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
        inputs.append(given[0].flatten(0, -2))
        if outputs is not None:
            outputs.append(result.flatten(0, -2))

    return keep


def _enough(sample: Rows) -> Iterator[Sequence[int]]:
    positions = 0
    for row in sample:
        if row and positions < _MOST_STATES:
            positions += len(row)
            yield row


def _directions(states: Tensor, width: int) -> Tensor:
    """Return the `width` principal directions of the states, turned at random so that all carry alike.

    A normalisation scales its dimensions to one common variance; turned ones have that already.
    """
    if width == states.shape[1]:
        return torch.eye(width)
    centred = states - states.mean(dim=0)
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    turn, _ = torch.linalg.qr(torch.randn(width, width))
    turned: Tensor = vectors[:, -width:] @ turn
    return turned


def _narrow_embeddings(old: Any, new: Any, directions: Tensor) -> None:
    for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
        getattr(new, name).weight.copy_(getattr(old, name).weight @ directions)


def _narrow_attention(old: Any, new: Any, basis: Basis, context: Tensor) -> None:
    """Keep the heads that add most to the hidden state; `context` is (positions, heads x size)."""
    before, after = old.attention, new.attention
    added = _contribution(context, before.output.dense).view(before.self.num_attention_heads, -1).sum(dim=1)
    heads = added.topk(after.self.num_attention_heads).indices.sort().values
    size = before.self.attention_head_size
    kept = (heads[:, None] * size + torch.arange(size)).flatten()
    for name in ("query", "key", "value"):
        _project(getattr(before.self, name), getattr(after.self, name), basis, rows=kept)
    _gather(before.output.dense, after.output.dense, basis.directions, kept, context.mean(dim=0))


def _narrow_feed_forward(old: Any, new: Any, basis: Basis, units: Tensor) -> None:
    """Keep the units that add most to the hidden state; `units` is (positions, units)."""
    added = _contribution(units, old.output.dense)
    kept = added.topk(new.intermediate.dense.out_features).indices.sort().values
    _project(old.intermediate.dense, new.intermediate.dense, basis, rows=kept)
    _gather(old.output.dense, new.output.dense, basis.directions, kept, units.mean(dim=0))


def _contribution(units: Tensor, reader: nn.Linear) -> Tensor:
    """Return the energy with which each unit moves what `reader` gives, around its mean."""
    return units.var(dim=0) * reader.weight.square().sum(dim=0)


def _project(
    old: nn.Linear, new: nn.Linear, basis: Basis, out: Tensor | None = None, *, rows: Tensor | None = None
) -> None:
    """Let `new` read projected states as `old` reads whole ones; its outputs are `rows`, or turned by `out`."""
    weight, bias = old.weight @ basis.directions, old.bias + old.weight @ basis.lost()
    if rows is not None:
        weight, bias = weight[rows], bias[rows]
    if out is not None:
        weight, bias = out.T @ weight, out.T @ bias
    new.weight.copy_(weight)
    new.bias.copy_(bias)


def _gather(old: nn.Linear, new: nn.Linear, directions: Tensor, kept: Tensor, mean: Tensor) -> None:
    """Let `new` read the `kept` units only and write projected states; the others count with their `mean`."""
    others = torch.ones(old.in_features, dtype=torch.bool)
    others[kept] = False
    new.weight.copy_(directions.T @ old.weight[:, kept])
    new.bias.copy_(directions.T @ (old.bias + old.weight[:, others] @ mean[others]))


def _fit_norm(norm: nn.LayerNorm, sums: Tensor, wanted: Tensor) -> None:
    """Choose scale and shift of `norm` so that it turns `sums` into `wanted` with the least squared error."""
    given = nn.functional.layer_norm(sums, norm.normalized_shape, eps=norm.eps)
    centred = given - given.mean(dim=0)
    scale = (centred * wanted).sum(dim=0) / centred.square().sum(dim=0).clamp_min(1e-6)
    norm.weight.copy_(scale)
    norm.bias.copy_(wanted.mean(dim=0) - scale * given.mean(dim=0))
