"""The encoder teacher: an encoder fine-tuned on gold with a mean-pooled head, or a classifier brought along."""

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from teacher.base import Progress, TeacherCard, read_card
from teacher.calibrate import fit_temperature
from teacher.errors import LabelMismatchError, TeacherError
from teacher.example import Example, content_id
from teacher.files import file_digest
from teacher.finetune import FineTuner, Recipe, Run, Score, TokenRows, gold_epochs, hard_label_objective
from teacher.pooled import HEAD, PooledClassifier, PooledEncoder, load_encoder, load_pooled
from teacher.processes import is_first_process, wait_for_all
from teacher.rows_in_use import rows_in_use
from teacher.scorer import TextScorer, check_vocabulary
from teacher.soft_labels import SoftLabels
from teacher.spec import EncoderSpec, FineTuneSpec
from teacher.task import PROBLEM_TYPES, Task, TaskKind, align_labels

_SOUP, _MANY_ROWS = 2, 20_000  # with more rows one training takes long enough
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")


@dataclass(frozen=True, slots=True)
class Gold:
    """The labelled rows a teacher may learn from, and how its answers on dev are scored."""

    task: Task
    train: Sequence[Example]
    dev: Sequence[Example]
    score: Score
    seed: int = 0
    progress: Progress = field(default=lambda rows: None)
    pool: Callable[[], Iterable[Sequence[Example]]] = field(default=lambda: ())  # in chunks, read again at each call

    def targets(self, examples: Sequence[Example]) -> NDArray[np.float32]:
        """Return the 0/1 targets (N, C) of labelled examples."""
        return self.task.targets([example.labels or () for example in examples])


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a teacher's card says of a fitted model."""

    kind: str
    task: Task
    temperature: float
    max_tokens: int


def fit_encoder(spec: EncoderSpec, gold: Gold, directory: Path) -> None:
    """Fine-tune `spec.model` on `gold.train` (or take a trained classifier as it is), calibrate on dev, save."""
    tokenizer = load_tokenizer(spec.model)
    if spec.trained:
        model: PreTrainedModel | PooledClassifier = _load_trained(spec.model)
    else:
        texts, targets = [example.text for example in gold.train], gold.targets(gold.train)
        if spec.label_names:
            texts += [gold.task.descriptions.get(name) or name.replace("_", " ") for name in gold.task.labels]
            targets = np.concatenate([targets, np.eye(len(gold.task.labels), dtype=np.float32)])
        model = fine_tune(tokenizer, spec, gold, (texts, targets), directory / "checkpoints")
    calibrate_and_save(model, tokenizer, gold, spec.max_tokens, directory)


def fine_tune(
    tokenizer: PreTrainedTokenizerBase,
    spec: FineTuneSpec,
    gold: Gold,
    lesson: tuple[list[str], NDArray[np.float32]],
    checkpoints: Path,
) -> PooledClassifier:
    """Return `spec.model` with a mean-pooled head, trained on the texts and targets (N, C) of `lesson`.

    Targets are 0/1 or probabilities; dev of `gold` is looked at on the way and decides nothing. With `spec.soup` the
    training is repeated with the next seeds, and the weights are averaged (Wortsman et al. 2022, "Model soups"): nearly
    as good as asking all of them, at the cost of asking one.
    """
    first = gold.seed if spec.seed is None else spec.seed
    epochs = spec.epochs or gold_epochs(len(lesson[0]))
    recipe = Recipe(epochs, spec.learning_rate, spec.head_learning_rate, spec.batch_size)
    train = TokenRows(tokenizer, lesson[0], spec.max_tokens, targets=lesson[1])
    texts = [example.text for example in gold.dev]
    dev = TokenRows(tokenizer, texts, spec.max_tokens, targets=gold.targets(gold.dev))
    padding = tokenizer.pad_token_id or 0
    read = np.union1d(np.union1d(train.token_ids(), dev.token_ids()), padding)
    run = Run(
        directory=checkpoints,
        train=train,
        dev=dev if texts else None,
        objective=hard_label_objective(gold.task.kind),
        padding_id=padding,
        score=gold.score,
        progress=gold.progress,
    )

    def trained(seed: int) -> PooledClassifier:
        set_seed(seed)
        model = PooledClassifier(load_encoder(spec.model), len(gold.task.labels))
        check_vocabulary(model, tokenizer)
        # The last checkpoint of a member stays until all are there, so that none is trained twice.
        with rows_in_use(model.encoder, read):
            FineTuner(model, replace(recipe, seed=seed), replace(run, directory=checkpoints / str(seed))).fit()
        return model

    soup = trained(first)
    for number in range(1, spec.soup or (_SOUP if len(lesson[0]) <= _MANY_ROWS else 1)):
        member = trained(first + number)
        with torch.no_grad():
            for mean, new in zip(soup.parameters(), member.parameters(), strict=True):
                mean.lerp_(new, 1 / (number + 1))
    shutil.rmtree(checkpoints, ignore_errors=True)
    return soup


def calibrate_and_save(
    model: PreTrainedModel | PooledClassifier,
    tokenizer: PreTrainedTokenizerBase,
    gold: Gold,
    max_tokens: int,
    directory: Path,
) -> None:
    """Fit the temperature of `model` on dev and write it into `directory` as an encoder teacher."""
    columns = align_columns(model, gold.task)
    logits = TextScorer(model, tokenizer, max_tokens).logits([example.text for example in gold.dev])
    temperature = fit_temperature(gold.task.kind, logits[:, columns], gold.targets(gold.dev))
    save_fitted(model, tokenizer, Fitted("encoder", gold.task, temperature, max_tokens), directory)


class EncoderTeacher:
    """A fitted encoder that answers with calibrated probabilities."""

    def __init__(self, directory: Path) -> None:
        """Load a directory that `fit_encoder` or `fit_prototypes` filled."""
        card = read_card(directory)
        self.task = card.task()
        self.fingerprint = card.fingerprint
        self.method = card.kind
        pooled = (directory / HEAD).is_file()
        self.model = (
            load_pooled(directory, unit_length=card.kind == "prototypes") if pooled else _load_trained(directory)
        )
        self.parameters = sum(parameter.numel() for parameter in self.model.parameters())
        self._extra = ("embeddings",) if pooled else ()
        self.scorer = TextScorer(self.model, load_tokenizer(directory), card.max_tokens)
        self._columns = align_columns(self.model, self.task)
        self._temperature = card.temperature

    def label(self, texts: Sequence[str]) -> SoftLabels:
        """Return softmax or sigmoid of the calibrated logits; no mass lies outside the labels."""
        outputs = self.scorer.outputs(texts, *self._extra)
        logits = torch.from_numpy(outputs["logits"][:, self._columns] / self._temperature)
        probs = ACTIVATIONS[self.task.kind](logits).numpy()
        ids = tuple(content_id(text) for text in texts)
        embeddings = outputs["embeddings"].astype(np.float16) if "embeddings" in outputs else None
        return SoftLabels(ids, probs, np.zeros(len(ids), np.float32), self.method, embeddings=embeddings)


def load_embedder(model: str, max_tokens: int) -> TextScorer:
    """Return a scorer whose `logits` are unit-length sentence embeddings (N, width) of the encoder `model`."""
    return TextScorer(PooledEncoder(load_encoder(model)), load_tokenizer(model), max_tokens)


def load_tokenizer(model: str | Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a checkpoint; raise TeacherError when there is none."""
    folder = Path(model)
    # Without a file the library makes a tokenizer up, one that knows no word.
    if folder.is_dir() and not any(next(folder.glob(name), None) for name in _TOKENIZER_FILES):
        wanted = ", ".join(_TOKENIZER_FILES)
        raise TeacherError(f"found no tokenizer in {folder}, wanted one of {wanted}; save it there")
    try:
        return AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise TeacherError(f"cannot load the tokenizer of {model}: {str(error).splitlines()[0]}") from error


def save_fitted(
    model: PreTrainedModel | PooledClassifier, tokenizer: PreTrainedTokenizerBase, fitted: Fitted, directory: Path
) -> None:
    """Write model, tokenizer and card from the first process; the fingerprint covers all that shapes an answer."""
    if is_first_process():
        model.save(directory) if isinstance(model, PooledClassifier) else model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        weights = [file_digest(path) for path in sorted(directory.glob("*.safetensors"))]
        TeacherCard.of(
            fitted.task, fitted.kind, weights, temperature=fitted.temperature, max_tokens=fitted.max_tokens
        ).write(directory)
    wait_for_all()


def align_columns(model: PreTrainedModel | PooledClassifier, task: Task) -> NDArray[np.intp]:
    """Return which output column of `model` answers each label of `task`; names decide, never positions."""
    if isinstance(model, PooledClassifier):  # made here, in the order of the task
        return np.arange(len(task.labels))
    found_type, wanted_type = model.config.problem_type, PROBLEM_TYPES[task.kind]
    if found_type not in (None, wanted_type):
        raise LabelMismatchError(
            f"the model was trained for {found_type}, the task wants {wanted_type}; change task.kind or the model"
        )
    found = [str(model.config.id2label[index]) for index in range(model.config.num_labels)]
    try:
        order = align_labels(np.arange(len(found), dtype=np.float32)[None, :], found, task.labels)
    except LabelMismatchError as error:
        raise LabelMismatchError(f"the model's id2label does not fit the task: {error}") from error
    return np.asarray(order[0], np.intp)


def _load_trained(model: str | Path) -> PreTrainedModel:
    try:
        return AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float32)
    except (OSError, ValueError, RuntimeError) as error:
        raise TeacherError(f"cannot load {model}: {str(error).splitlines()[0]}") from error


ACTIVATIONS = {
    TaskKind.SINGLE_LABEL: lambda logits: torch.softmax(logits, dim=-1),
    TaskKind.MULTI_LABEL: torch.sigmoid,
}
