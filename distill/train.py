"""Train a student on soft labels, and the same student on gold alone as its rival.

Stage functions: paths and config sections in, one directory with a standard checkpoint out.
"""

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Subset
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from distill.background import Background, read_background
from distill.data import Transfer, label_stores, labelled_rows, needed_tokens, read_transfer, read_variants
from distill.hints import Hints
from distill.losses import distillation_objective
from distill.scores import dev_score
from distill.showing import draw_showings, showing_weights
from distill.spec import Part, TrainSpec
from distill.trainer import DistillationTrainer
from student.coding import code_tokens, embed_by_codes, save_checkpoint
from student.first_position import compute_first_position
from student.model import Head, adopt_head, build_student, parameter_count, source_layers
from student.sharing import MOST_TOKENS, borrowing, choose_owners, read_places, share_rows
from student.spec import StudentKind, StudentSpec
from student.vocabulary import changed_splits, prove_unchanged, trim_vocabulary
from student.warm_start import states_alone
from teacher.corpus import read_part
from teacher.encoder import load_embedder
from teacher.example import content_id
from teacher.files import write_atomically
from teacher.finetune import FineTuner, Recipe, Run, TokenRows, epochs_for, gold_epochs, last_whole_checkpoint
from teacher.kinds import linear_head
from teacher.pooled import load_encoder
from teacher.processes import is_first_process, wait_for_all
from teacher.soft_labels import read_embeddings
from teacher.task import PROBLEM_TYPES, Task

METRICS = "metrics.json"
CHECKPOINTS = "checkpoints"
_MEASURED_TEXTS = 500  # of the pool, to measure on what a narrower student should keep
# Tokens with an embedding row of their own, at least; in a transformer others have bytes that tell them apart too.
_LEAST_ROWS: Mapping[StudentKind, int] = {"transformer": 5000, "static": 6000}
_REFERENCE_EPOCHS: Mapping[StudentKind, float] = {"transformer": 20, "static": 100}  # at 8,600 rows
# More passes over texts and variants than these, and more rows, are learned by heart.
_MOST_PASSES: Mapping[StudentKind, float] = {"transformer": math.inf, "static": 5}
_ROWS_BEFORE_PASSES_COUNT = 350_000
_ROWS_FOR_LARGE_BATCHES = 48_000  # shown in one training, at least, so that enough steps are left
_TOKENS_FOR_LARGE_BATCHES = 128  # in the longest text, at most, so that memory is no matter
# On gold alone: passes over it against those of a fine-tuned encoder, and both learning rates.
_ON_GOLD: Mapping[StudentKind, tuple[float, float, float]] = {
    "transformer": (1, 2e-4, 2e-3),
    "static": (4, 1e-2, 5e-3),
}


@dataclass(frozen=True, slots=True)
class TrainInputs:
    """Finished directories and what both stages of training share."""

    corpus: Path
    labels: Path
    task: Task
    seed: int = 0
    progress: Callable[[int], None] = field(default=lambda rows: None)
    part: Part = field(default_factory=Part)
    background: Background | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """A student ready to be trained, its tokenizer, and what is known of its vocabulary."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_tokens: int
    vocabulary: dict[str, float]
    source_ids: NDArray[np.int64] | None = None  # of its tokens in the vocabulary that was trimmed, where one was

    @property
    def padding_id(self) -> int:
        """The token id to pad with."""
        return self.tokenizer.pad_token_id or 0

    def save(self, directory: Path) -> None:
        """Write a standard checkpoint with its tokenizer and, where rows are made of codes, those."""
        save_checkpoint(self.model, directory)
        self.tokenizer.save_pretrained(directory)


def train_student(
    inputs: TrainInputs, source: str, embedder: Path | None, student: StudentSpec, train: TrainSpec, directory: Path
) -> None:
    """Distil the pool's soft labels into a student drafted from the checkpoint `source`; save to `directory`.

    `embedder` is the folder of the teacher's encoder, whose sentence embeddings the student learns beside them, and
    what its layers make of every token where the student starts from them.
    """
    train = train.settled(student.kind)
    pool = read_transfer(inputs.corpus, inputs.labels, inputs.task, "pool")
    draft = draft_student(inputs, source, student, pool.texts)
    variants = read_variants(inputs.labels)
    transfer = known = pool.joined(variants) if variants else pool
    weights = showing_weights(inputs.task.kind, known.soft)
    if inputs.background:
        strange = read_background(inputs.background, inputs.corpus, inputs.task, len(known.texts), inputs.seed)
        transfer, weights = known.joined(strange), np.concatenate([weights, np.ones(len(strange.texts))])
    if student.init == "teacher" and (head := linear_head(Path(source))) is not None:
        adopt_head(draft.model, *head)
    hidden_weight = (train.hidden_weight or 0.0) if embedder else 0.0
    if hidden_weight:
        transfer = replace(transfer, hidden=_embed(inputs, str(embedder), draft.max_tokens, transfer.texts))
    hints = read_hints(draft, student, embedder) if train.hint_weight and embedder == Path(source) else None
    recipe = recipe_of(
        train, len(pool.texts), inputs.seed, student.kind, texts=len(known.texts), max_tokens=draft.max_tokens
    )
    # An epoch shows as many texts as the pool holds, each as itself or as a variant; background comes on top.
    epochs = recipe.epochs
    count = math.ceil(epochs * len(pool.texts) * (len(transfer.texts) / len(known.texts)))
    shown = draw_showings(weights, count, inputs.seed)
    run = _run(inputs, draft, transfer, directory, train)
    run = replace(run, train=Subset(run.train, shown.tolist()), **_pause(inputs.part, train))
    recipe = replace(recipe, epochs=1, looks=math.ceil(epochs))
    log = DistillationTrainer(draft.model, recipe, run, hidden_weight, hints, train.hint_weight or 0.0).fit()
    facts = {
        "rows": len(pool.texts),
        "variants": len(known.texts) - len(pool.texts),
        "background": len(transfer.texts) - len(known.texts),
        "epochs": epochs,
    }
    save_student(draft, log, directory, facts, keeps_checkpoints=inputs.part.share < 1)


def train_gold_only(inputs: TrainInputs, source: str, student: StudentSpec, train: TrainSpec, directory: Path) -> None:
    """Train the same student on the gold labels alone, from the same kind of start, and save it.

    It is the rival that needs no teacher, so `source` is the untuned encoder and never the teacher.
    """
    gold = read_part(inputs.corpus, "gold")
    draft = draft_student(inputs, source, student, [example.text for example in read_part(inputs.corpus, "pool")])
    rows = labelled_rows(gold, inputs.task, draft.tokenizer, draft.max_tokens)
    targets = inputs.task.targets([example.labels or () for example in gold])
    transfer = Transfer([example.text for example in gold], targets, targets, np.ones(len(gold), bool))
    run = _run(inputs, draft, transfer, directory, train.model_copy(update={"gold_weight": 1.0}))
    passes, rate, head_rate = _ON_GOLD[student.kind]
    epochs = passes * gold_epochs(len(rows))
    recipe = Recipe(epochs, rate, head_rate, seed=inputs.seed)
    log = FineTuner(draft.model, recipe, run).fit()
    save_student(draft, log, directory, {"rows": len(rows), "epochs": epochs})


def draft_student(inputs: TrainInputs, source: str, spec: StudentSpec, texts: Sequence[str]) -> Draft:
    """Build the untrained student: layers of `source`, and of its embedding the rows that `texts` need.

    Raises StudentError when trimming changes how any of `texts` splits.
    """
    set_seed(inputs.seed)
    full = AutoTokenizer.from_pretrained(source)
    limit = _longest_input(source, full)
    tokenizer, kept_ids, owners, is_static = full, None, None, spec.kind == "static"
    facts: dict[str, float] = {"before": len(full), "after": len(full), "changed_corpus": 0, "changed_heldout": 0}
    heldout = [example.text for example in read_part(inputs.corpus, "dev")]
    if spec.vocabulary == "shared" and spec.init != "config" and len(full) <= MOST_TOKENS:
        read, unread = (TokenRows(full, part, limit).all_tokens() for part in (texts, heldout))
        owners = choose_owners(full, read, least_rows=_LEAST_ROWS[spec.kind])
        facts |= {"changed_corpus": borrowing(owners, read), "changed_heldout": borrowing(owners, unread)}
        facts["after"] = len(owners)
        kept_ids = owners if is_static else None
    elif spec.vocabulary != "full":
        trimmed = trim_vocabulary(full, texts)
        tokenizer, kept_ids = trimmed.tokenizer, trimmed.kept_ids
        prove_unchanged(full, tokenizer, kept_ids, texts)
        facts["after"], facts["changed_heldout"] = len(kept_ids), changed_splits(full, tokenizer, heldout)
    max_tokens = min(spec.max_tokens, limit) if spec.max_tokens else needed_tokens(tokenizer, texts, limit)
    tokenizer.model_max_length = max_tokens
    head = Head(inputs.task.labels, PROBLEM_TYPES[inputs.task.kind])
    chosen = np.random.default_rng(inputs.seed).permutation(len(texts))[:_MEASURED_TEXTS]
    sample = TokenRows(tokenizer, [texts[row] for row in chosen], max_tokens)
    model = build_student(source, spec, head, kept_ids, inputs.seed, [row.tolist() for row in sample.all_tokens()])
    if owners is not None and is_static:
        read_places(model, share_rows(states_alone(source), owners, full.all_special_ids))
    elif owners is not None and len(owners) < len(full):
        embed_by_codes(model, code_tokens(model.get_input_embeddings().weight, owners))
    compute_first_position(model)
    return Draft(model, tokenizer, max_tokens, facts, None if is_static else kept_ids)


def read_hints(draft: Draft, spec: StudentSpec, embedder: Path) -> Hints | None:
    """Return the teacher's hidden states after the layers that the student `draft` copied from `embedder`.

    Of the last one it learns the sentence embedding instead. None where it copied no other, or has another width.
    """
    if spec.kind != "transformer" or spec.init != "teacher":
        return None
    encoder = load_encoder(str(embedder))
    layers = source_layers(spec, encoder.config)[:-1]
    if not layers or encoder.config.hidden_size != draft.model.config.hidden_size:
        return None
    return Hints(encoder, layers, draft.source_ids)


def recipe_of(
    train: TrainSpec,
    rows: int,
    seed: int,
    kind: StudentKind = "transformer",
    *,
    texts: int | None = None,
    max_tokens: int | None = None,
) -> Recipe:
    """Return the training recipe of a config section for `rows` training rows and a student of `kind`.

    Without `train.epochs`, rows seen grow as the 0.4th power of the rows there are, 20 epochs at 8,600 for a
    transformer; beyond 350,000 rows a static student sees none of the `texts`, the rows and their variants, more than
    five times. Without `train.batch_size`, a transformer that reads at most 128 tokens (`max_tokens`) takes 64 texts a
    step where it is shown 48,000 rows or more: nearly half of a step of 32 is spent on its weights.
    """
    train = train.settled(kind)
    grown = epochs_for(rows, reference_rows=8_600, reference_epochs=_REFERENCE_EPOCHS[kind], power=0.4)
    most = max(_MOST_PASSES[kind] * (texts or rows), _ROWS_BEFORE_PASSES_COUNT) / max(rows, 1)
    epochs = train.epochs or min(grown, most)
    are_short = max_tokens is not None and max_tokens <= _TOKENS_FOR_LARGE_BATCHES
    usual_batch = 64 if are_short and epochs * rows >= _ROWS_FOR_LARGE_BATCHES else 32
    return Recipe(
        epochs=epochs,
        learning_rate=train.learning_rate or 0.0,
        head_learning_rate=train.head_learning_rate or 0.0,
        batch_size=train.batch_size or usual_batch,
        weight_decay=train.weight_decay,
        warmup=train.warmup,
        patience=train.patience,
        bf16=train.bf16,
        seed=seed,
        report_to=tuple(train.report_to),
    )


def save_student(
    draft: Draft,
    log: list[dict[str, float]],
    directory: Path,
    facts: dict[str, Any],
    *,
    keeps_checkpoints: bool = False,
) -> None:
    """Save checkpoint, tokenizer and metrics from the first process; remove what only an unfinished training needs."""
    if is_first_process():
        draft.save(directory)
        metrics = {
            "dev_score": last_score(log),
            "parameters": parameter_count(draft.model),
            "max_tokens": draft.max_tokens,
            "vocabulary": draft.vocabulary,
            "log": log,
            **facts,
        }
        (directory / METRICS).write_text(json.dumps(metrics, indent=2), encoding="utf-8")
        if not keeps_checkpoints:
            shutil.rmtree(directory / CHECKPOINTS, ignore_errors=True)
    wait_for_all()


def last_score(log: list[dict[str, float]]) -> float | None:
    """Return the dev score of the model a run ended with."""
    return next((entry["eval_score"] for entry in reversed(log) if "eval_score" in entry), None)


def read_metrics(directory: Path) -> dict[str, Any]:
    """Return what `save_student` wrote about a student."""
    metrics: dict[str, Any] = json.loads((directory / METRICS).read_text(encoding="utf-8"))
    return metrics


def _run(inputs: TrainInputs, draft: Draft, transfer: Transfer, directory: Path, train: TrainSpec) -> Run:
    dev = read_part(inputs.corpus, "dev")
    return Run(
        directory=directory / CHECKPOINTS,
        train=transfer.rows(draft.tokenizer, draft.max_tokens),
        dev=labelled_rows(dev, inputs.task, draft.tokenizer, draft.max_tokens),
        objective=distillation_objective(
            inputs.task.kind, train.loss, temperature=train.temperature, gold_weight=train.gold_weight
        ),
        padding_id=draft.padding_id,
        score=dev_score(inputs.task.kind),
        progress=inputs.progress,
    )


def _pause(part: Part, train: TrainSpec) -> dict[str, Any]:
    """Return where a run pauses and what it goes on from; with `patience` the checkpoint kept is not the last one."""
    found = part.earlier and train.patience is None and last_whole_checkpoint(part.earlier / CHECKPOINTS)
    return {"share": part.share, "earlier": Path(found) if found else None}


def _embed(inputs: TrainInputs, embedder: str, max_tokens: int, texts: Sequence[str]) -> NDArray[np.float16]:
    """Return the teacher's sentence embeddings (texts, width): those that stand beside its answers, or in the shared
    folder, and the others asked for."""
    stored, found = read_embeddings(label_stores(inputs.labels), [content_id(text) for text in texts])
    if not found.all():
        asked = _ask_embeddings(inputs, embedder, max_tokens, [texts[row] for row in np.flatnonzero(~found).tolist()])
        stored = stored if found.any() else np.zeros((len(texts), asked.shape[1]), np.float16)
        stored[~found] = asked
    return stored


def _ask_embeddings(inputs: TrainInputs, embedder: str, max_tokens: int, texts: Sequence[str]) -> NDArray[np.float16]:
    shared = inputs.part.shared
    kept = shared and shared / f"embeddings-{max_tokens}.npy"
    if kept and kept.is_file():
        return np.asarray(np.load(kept, allow_pickle=False), np.float16)
    embeddings: NDArray[np.float16] = load_embedder(embedder, max_tokens).logits(texts).astype(np.float16)
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, lambda path: _save(path, embeddings))
    return embeddings


def _save(path: Path, array: NDArray[np.float16]) -> None:
    with path.open("wb") as file:  # given a path, numpy would add a suffix of its own
        np.save(file, array, allow_pickle=False)


def _longest_input(source: str, tokenizer: PreTrainedTokenizerBase) -> int:
    config = AutoConfig.from_pretrained(source)
    positions = getattr(config, "max_position_embeddings", 512)
    if config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        positions -= config.pad_token_id + 1  # these count positions from behind the padding id
    return int(min(positions, tokenizer.model_max_length))
