"""Build a static student whose token embeddings begin as what an encoder makes of each token alone.

Knows nothing of labels and of training; `static.py` holds the model itself.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, PreTrainedConfig

from student.spec import StudentSpec
from student.static import StaticConfig, StaticForSequenceClassification

_BATCH_TOKENS = 512
_SCALE = 0.1  # root mean square of the token embeddings a student starts with
_NGRAM_SCALE = 0.02
_SUM_SCALE = 0.2  # of the normalised sums, about that of the maxima beside them


def build_static(
    source: str, spec: StudentSpec, shape: PreTrainedConfig, options: Mapping[str, object], kept_ids: Tensor | None
) -> StaticForSequenceClassification:
    """Return a static classifier over the vocabulary of `shape`, the source's config with its rows trimmed.

    `options` are the labels as a config names them, `kept_ids` the rows of the source's embedding that are kept.
    """
    sizes = {
        "hidden_size": spec.width,
        "ngram_rows": spec.ngram_rows,
        "ngram_width": spec.ngram_width,
        "intermediate_size": spec.intermediate,
    }
    chosen = {name: value for name, value in sizes.items() if value is not None}
    config = StaticConfig(vocab_size=shape.vocab_size, pad_token_id=shape.pad_token_id, **chosen)
    config.update(dict(options))
    student = StaticForSequenceClassification(config)
    with torch.no_grad():
        torch.nn.init.normal_(student.embedder.ngrams.weight[1:], std=_NGRAM_SCALE)  # the first is nobody's
        student.embedder.norm.weight.fill_(_SUM_SCALE)
        torch.nn.init.xavier_uniform_(student.dense.weight)
        words = student.embedder.words.weight[:-1]  # the last is nobody
        if spec.init == "config":
            torch.nn.init.normal_(words, std=_SCALE)
        else:
            words.copy_(_principal(states_alone(source, kept_ids), words.shape[1]))
    return student


def states_alone(source: str, kept_ids: Tensor | None = None) -> Tensor:
    """Return the mean last hidden state of each token, or each kept one, as the only one of its text, (tokens, width).

    Tulkens & van Dongen 2024, "Model2Vec".
    """
    encoder = AutoModel.from_pretrained(source, dtype=torch.float32).eval()
    ids = torch.arange(encoder.config.vocab_size) if kept_ids is None else kept_ids
    around = torch.tensor(AutoTokenizer.from_pretrained(source)("")["input_ids"], dtype=torch.int64)
    opening, closing = around[:1], around[1:]
    means = []
    with torch.no_grad():
        for batch in torch.split(ids, _BATCH_TOKENS):
            rows = torch.cat([opening.expand(len(batch), -1), batch[:, None], closing.expand(len(batch), -1)], dim=1)
            means.append(encoder(input_ids=rows, attention_mask=torch.ones_like(rows)).last_hidden_state.mean(dim=1))
    return torch.cat(means)


def _principal(states: Tensor, width: int) -> Tensor:
    """Return the states (N, any) in their first `width` principal components, at the scale a student starts with.

    Directions beyond those that there are begin at random.
    """
    centred = states - states.mean(dim=0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    found = centred @ directions[:width].T
    missing = width - found.shape[1]
    if missing > 0:
        found = torch.cat([found, found.std() * torch.randn(len(found), missing)], dim=1)
    scaled: Tensor = found * (_SCALE / found.square().mean().sqrt().clamp_min(1e-9))
    return scaled
