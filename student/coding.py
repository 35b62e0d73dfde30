"""A whole vocabulary in few bytes: a token that a corpus has gets an embedding row, any other one sixteen bytes.

Text that nobody has seen before is then read much as the teacher reads it, where a trimmed vocabulary would break its
words into pieces. The bytes are a product quantization (Jégou, Douze and Schmid 2011) of the teacher's row in its
leading principal directions, which are dealt to the parts as in the parametric solution of Ge et al. 2013, "Optimized
Product Quantization". A finished checkpoint holds a row for every token, as any library expects, and beside it a file
that says what the rows are made of, so that an exporter may ship that instead.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from sklearn.cluster import KMeans
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

CODES = "coded_tokens.safetensors"
_PARTS, _DIRECTIONS = 16, 128  # bytes a token; what they are spent on
_CENTRES = 255  # of a part; code 0 stands for zeros
_FITTED, _ROUNDS = 8192, 8  # rows that means are fitted to, and how often


@dataclass(frozen=True, slots=True, eq=False)
class CodedTokens:
    """What the rows of tokens are made of, all width wide.

    The row of token i is row `places[i]` of those that owners have and `offset` behind them, plus entry `codes[i, p]`
    of `codebook[p]` of each part p, all entries one after the other times `directions`. An owner's codes are 0, which
    stands for zeros; any other token's place is that of `offset`. Shapes: places (tokens,) int32, codes (tokens, parts)
    uint8, codebook (parts, 256, directions of a part), directions (all directions, width), offset (width,); floats are
    float32.
    """

    places: Tensor
    codes: Tensor
    codebook: Tensor
    directions: Tensor
    offset: Tensor

    @property
    def owners(self) -> Tensor:
        """The ids, rising, of the tokens with a row of their own."""
        return torch.nonzero(self.places < self.places.max()).flatten()

    def save(self, directory: Path) -> None:
        """Write the file `CODES` into the checkpoint `directory`."""
        save_file({each.name: getattr(self, each.name).contiguous() for each in fields(self)}, directory / CODES)


class CodedEmbedding(nn.Module):
    """Token ids (batch, sequence) to embeddings (batch, sequence, width); rows and offset learn, codes stay."""

    def __init__(self, rows: Tensor, coded: CodedTokens) -> None:
        """Take the `rows` (owners, width) of `coded.owners`."""
        super().__init__()
        self.own = nn.Embedding(len(rows) + 1, rows.shape[1], _weight=torch.cat([rows, coded.offset[None]]))
        for each in ("places", "codes", "codebook", "directions"):
            self.register_buffer(each, getattr(coded, each).clone())
        self.register_buffer("starts", 256 * torch.arange(coded.codes.shape[1]), persistent=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        entries = cast(Tensor, self.codes)[input_ids].long() + cast(Tensor, self.starts)
        with torch.autocast(input_ids.device.type, enabled=False):  # of which bfloat16 would leave little
            rows: Tensor = self.own(cast(Tensor, self.places)[input_ids])
            made_up = cast(Tensor, self.codebook).flatten(0, 1)[entries].flatten(-2) @ cast(Tensor, self.directions)
            return rows + made_up

    def coded(self) -> CodedTokens:
        """Return what the rows are made of by now."""
        buffers = {name: cast(Tensor, getattr(self, name)) for name in ("places", "codes", "codebook", "directions")}
        return CodedTokens(**buffers, offset=self.own.weight[-1].detach().clone())

    def table(self) -> Tensor:
        """Return the row of every token, (tokens, width)."""
        places = cast(Tensor, self.places)
        with torch.no_grad():
            return cast(Tensor, self(torch.arange(len(places), device=places.device)))


def code_tokens(table: Tensor, owners: NDArray[np.int64]) -> CodedTokens:
    """Return codes for all tokens of `table` (tokens, width) but the `owners`, rising ids, which keep their rows."""
    others = np.setdiff1d(np.arange(len(table)), owners)
    places = np.full(len(table), len(owners), np.int32)
    places[owners] = np.arange(len(owners))
    rows = table[torch.from_numpy(others)].detach().numpy().astype(np.float64)
    parts = min(_PARTS, rows.shape[1])
    centred = rows - (offset := rows.mean(axis=0))
    variances, directions = np.linalg.eigh(centred.T @ centred / len(rows))  # rising
    count = min(_DIRECTIONS, rows.shape[1]) // parts * parts
    dealt = _deal(variances[::-1][:count], parts)
    directions = directions[:, ::-1][:, dealt.ravel()]
    codes = np.zeros((len(table), parts), np.uint8)
    codebook = np.zeros((parts, 1 + _CENTRES, dealt.shape[1]), np.float32)
    fitted = np.random.default_rng(0).permutation(len(rows))[:_FITTED]
    for part, coordinates in enumerate(np.split((centred @ directions).astype(np.float32), parts, axis=1)):
        means = KMeans(min(_CENTRES, len(fitted)), init="random", max_iter=_ROUNDS, random_state=0)
        means.fit(coordinates[fitted])
        codes[others, part] = 1 + means.predict(coordinates)
        codebook[part, 1 : 1 + means.n_clusters] = means.cluster_centers_
    floats = (torch.from_numpy(np.ascontiguousarray(each, np.float32)) for each in (codebook, directions.T, offset))
    return CodedTokens(torch.from_numpy(places), torch.from_numpy(codes), *floats)


def read_codes(directory: Path) -> CodedTokens | None:
    """Return what stands in the file `CODES` of a checkpoint, None where there is none."""
    path = directory / CODES
    return CodedTokens(**load_file(path)) if path.is_file() else None


def embed_by_codes(model: PreTrainedModel, coded: CodedTokens) -> None:
    """Let `model`, whose embedding has a row for every token, make up those of `coded` from their codes."""
    rows = model.get_input_embeddings().weight.detach()[coded.owners]
    model.set_input_embeddings(CodedEmbedding(rows, coded))


def save_checkpoint(model: PreTrainedModel, directory: Path) -> None:
    """Save `model` to `directory` with a row for every token and, where it embeds by codes, those beside it."""
    name, embedding = next(
        ((name, part) for name, part in model.named_modules() if isinstance(part, CodedEmbedding)), ("", None)
    )
    if embedding is None:
        model.save_pretrained(directory)
        return
    weights = {key: tensor for key, tensor in model.state_dict().items() if not key.startswith(f"{name}.")}
    standard = AutoModelForSequenceClassification.from_config(model.config, attn_implementation="eager")
    standard.load_state_dict(weights | {f"{name}.weight": embedding.table()})
    standard.save_pretrained(directory)
    embedding.coded().save(directory)


def _deal(variances: NDArray[np.float64], parts: int) -> NDArray[np.intp]:
    """Return which of some directions belong to each part, (parts, directions of a part).

    `variances` fall; each direction goes to the part with room whose variances, measured by the smallest of all, have
    the smallest product.
    """
    size = len(variances) // parts
    dealt: list[list[int]] = [[] for _ in range(parts)]
    products = np.zeros(parts)
    logarithms = np.log(np.maximum(variances, np.finfo(np.float32).tiny))
    for direction, factor in enumerate(logarithms - logarithms[-1]):
        part = min((part for part in range(parts) if len(dealt[part]) < size), key=lambda part: products[part])
        dealt[part].append(direction)
        products[part] += factor
    return np.array(dealt)
