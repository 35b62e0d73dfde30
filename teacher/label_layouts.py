"""Three ways to lay labels out behind prompts for a causal language model; all give the same scores.

A score is the mean log-probability of a label's tokens after the prompt, natural logarithm. `packed` reads a prompt
once and all labels with it, `expanded` reads the prompt once and a copy of its cache for each label, and `separate`
reads the prompt again for each label: slow, and what the others are held against.
"""

import copy
import inspect
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache, PreTrainedModel

from teacher.label_tokens import Border, LabelTree, common_length

_LOGITS_PER_PASS = 2**26  # float32 logits held at once: 256 MB
_LOGITS_AT_ONCE = 16  # positions whose logits are normalised together: they stay in the cache of a core
Prompts = Sequence[list[int]]


@torch.inference_mode()
def packed(model: PreTrainedModel, prompts: Prompts, border: Border, batch_size: int) -> NDArray[np.float32]:
    """Score all labels of a prompt in one pass over its tokens and the tree of the labels; returns (N, C).

    What all `prompts` begin with is read once and its cache shared. Behind it stand the rest of a prompt, padded on
    the left, and the label tree; a 4D mask lets every node see the prompt and what it follows, and position ids
    start anew behind the prompt.
    """
    tree = LabelTree.grow(border.continuations)
    head = _shared_head(prompts)
    cache = _read_head(model, prompts[0][:head])
    rows = min(batch_size, _rows_per_pass(model, 1 + len(tree.tokens)))
    order = np.argsort([len(prompt) for prompt in prompts], kind="stable")
    scores = np.empty((len(prompts), len(border.continuations)), np.float32)
    for start in range(0, len(order), rows):
        chosen = order[start : start + rows]
        rests = [prompts[row][head:] for row in chosen]
        scores[chosen] = _tree_log_probs(_read_packed(model, cache, head, rests, tree), tree) @ tree.shares
    return scores


@torch.inference_mode()
def expanded(model: PreTrainedModel, prompts: Prompts, border: Border, batch_size: int) -> NDArray[np.float32]:
    """Score labels as rows of a batch behind copies of the prompt's cache; returns (N, C).

    For models that keep another cache than all keys and values, or take no 4D mask.
    """
    scores = [_score_expanded(model, prompt, border.continuations) for prompt in prompts]
    return np.array(scores, np.float32).reshape(len(prompts), len(border.continuations))


@torch.inference_mode()
def separate(model: PreTrainedModel, prompts: Prompts, border: Border, batch_size: int) -> NDArray[np.float32]:
    """Score each label in a pass of its own over the prompt and the label; returns (N, C)."""
    scores = np.empty((len(prompts), len(border.continuations)), np.float32)
    for row, prompt in enumerate(prompts):
        for column, ids in enumerate(border.continuations):
            whole = torch.tensor([[*prompt, *ids[:-1]]], device=model.device)
            logits = model(input_ids=whole, use_cache=False, **_keep(model, len(ids))).logits[0, -len(ids) :]
            scores[row, column] = _mean_log_prob(torch.log_softmax(logits.float(), dim=-1), ids)
    return scores


def sees_all(model: PreTrainedModel, max_tokens: int) -> bool:
    """Say whether every layer of `model` attends to all of `max_tokens` tokens, so that one mask fits all layers."""
    windows = [getattr(layer, "sliding_window", None) for layer in DynamicCache(config=model.config).layers]
    return all(window is None or window > max_tokens for window in windows)


def _shared_head(prompts: Prompts) -> int:
    """Return how many tokens all `prompts` begin with; each keeps one more at least, to foretell from."""
    common = common_length(min(prompts), max(prompts))
    return min(common, min(len(prompt) for prompt in prompts) - 1)


def _read_head(model: PreTrainedModel, tokens: Sequence[int]) -> DynamicCache:
    cache = DynamicCache()
    if tokens:
        ids = torch.tensor([tokens], device=model.device)
        model(input_ids=ids, past_key_values=cache, use_cache=True, **_keep(model, 1))
    return cache


def _read_packed(
    model: PreTrainedModel, cache: DynamicCache, head: int, rests: Prompts, tree: LabelTree
) -> torch.Tensor:
    """Return logits (batch, 1 + K, vocabulary) at the end of each prompt and at the nodes."""
    lengths = torch.tensor([len(rest) for rest in rests])
    width = int(lengths.max())
    tokens = np.zeros((len(rests), width + len(tree.tokens)), np.int64)
    for row, rest in enumerate(rests):
        tokens[row, width - len(rest) : width] = rest
    tokens[:, width:] = tree.tokens
    behind = head + lengths[:, None]  # the position of a label's first token
    prompt_positions = (behind + torch.arange(width) - width).clamp(min=0)
    positions = torch.cat([prompt_positions, behind + torch.from_numpy(tree.depths)], dim=1)
    logits: torch.Tensor = model(
        input_ids=torch.from_numpy(tokens).to(model.device),
        attention_mask=_mask(head, lengths, tree, model.dtype).to(model.device),
        position_ids=positions.to(model.device),
        past_key_values=_fork(cache, len(rests)),
        use_cache=True,
        **_keep(model, 1 + len(tree.tokens)),
    ).logits
    return logits[:, -1 - len(tree.tokens) :]


def _mask(head: int, lengths: torch.Tensor, tree: LabelTree, dtype: torch.dtype) -> torch.Tensor:
    """Return what is added to attention, (batch, 1, queries, head + queries): 0 where a query sees, else the least.

    Queries are the left-padded rests of the prompts and behind them the nodes.
    """
    width, nodes = int(lengths.max()), len(tree.tokens)
    is_real = torch.arange(width) >= width - lengths[:, None]
    sees = torch.zeros(len(lengths), width + nodes, head + width + nodes, dtype=torch.bool)
    sees[:, :, :head] = True
    sees[:, :width, head : head + width] = torch.ones(width, width, dtype=torch.bool).tril() & is_real[:, None]
    sees[:, width:, head : head + width] = is_real[:, None]
    sees[:, width:, head + width :] = torch.from_numpy(tree.sees)
    # The least finite number, not infinity: padding that sees nothing must not become NaN.
    return torch.zeros(sees.shape, dtype=dtype).masked_fill_(~sees, torch.finfo(dtype).min)[:, None]


def _fork(cache: DynamicCache, rows: int) -> DynamicCache:
    """Return `cache` as seen by `rows` prompts; what they add stays out of `cache`, which is not copied."""
    fork = copy.copy(cache)
    fork.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in fork.layers:
        layer.keys, layer.values = layer.keys.expand(rows, -1, -1, -1), layer.values.expand(rows, -1, -1, -1)
    return fork


def _tree_log_probs(logits: torch.Tensor, tree: LabelTree) -> NDArray[np.float32]:
    """Return the log-probabilities (batch, E) of the tree's edges."""
    rows, targets = (torch.from_numpy(index).to(logits.device) for index in (tree.rows, tree.targets))
    sums = [torch.logsumexp(part.float(), dim=-1) for part in torch.split(logits, _LOGITS_AT_ONCE, dim=1)]
    log_probs = logits[:, rows, targets].float() - torch.cat(sums, dim=1)[:, rows]
    return log_probs.cpu().numpy()


def _score_expanded(
    model: PreTrainedModel, prompt: Sequence[int], continuations: Sequence[tuple[int, ...]]
) -> list[float]:
    ids = torch.tensor([prompt], device=model.device)
    output = model(input_ids=ids, use_cache=True, **_keep(model, 1))
    first = torch.log_softmax(output.logits[:, -1:].float(), dim=-1)
    width = max(len(ids) for ids in continuations) - 1
    if not width:
        return [_mean_log_prob(first[0], ids) for ids in continuations]
    rows, scores = _rows_per_pass(model, width), []
    for start in range(0, len(continuations), rows):
        chosen = continuations[start : start + rows]
        cache = copy.deepcopy(output.past_key_values)
        cache.batch_repeat_interleave(len(chosen))
        tokens = torch.tensor([[*ids[:-1], *[0] * (width + 1 - len(ids))] for ids in chosen], device=model.device)
        lengths = torch.tensor([len(prompt) + len(ids) - 1 for ids in chosen], device=model.device)
        mask = (torch.arange(len(prompt) + width, device=model.device) < lengths[:, None]).long()
        read = model(input_ids=tokens, attention_mask=mask, past_key_values=cache, use_cache=True)
        later = torch.log_softmax(read.logits.float(), dim=-1)
        log_probs = torch.cat([first.expand(len(chosen), -1, -1), later], dim=1)
        scores += [_mean_log_prob(log_probs[row], ids) for row, ids in enumerate(chosen)]
    return scores


def _mean_log_prob(log_probs: torch.Tensor, ids: Sequence[int]) -> float:
    """Return the mean over `ids` of their entries in `log_probs` (at least len(ids), vocabulary)."""
    targets = torch.tensor(ids, device=log_probs.device)
    return float(log_probs[: len(ids)].gather(1, targets[:, None]).mean())


def _rows_per_pass(model: PreTrainedModel, positions: int) -> int:
    return max(1, _LOGITS_PER_PASS // (positions * len(model.get_input_embeddings().weight)))


def _keep(model: PreTrainedModel, positions: int) -> dict[str, int]:
    """Return the argument that spares the logits before the last `positions`, where the model knows it."""
    known = "logits_to_keep" in inspect.signature(model.forward).parameters
    return {"logits_to_keep": positions} if known else {}
