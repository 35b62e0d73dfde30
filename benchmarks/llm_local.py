"""Score all labels behind a prompt in one shared-prefix pass, beside scoring each label separately; exit 1 on a miss.

    python benchmarks/llm_local.py LABELS [--layers N] [--width N] [--texts N] [--rounds N]

LABELS is a file with one label name a line, or a data folder whose train.csv has the columns text and label. The
model is a randomly initialised Llama of the given size, float32: the values of weights change neither the speed nor
whether two ways of computing agree. Each round takes other texts and all sides in turn, in alternating order. The
rivals read prompt and label anew for each label, one at a time or in padded batches; the faster of the two counts.
"""

import argparse
import csv
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from lines import Line
from numpy.typing import NDArray
from scipy.special import softmax
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from teacher.conversation import Conversation
from teacher.label_layouts import separate
from teacher.label_scorer import LabelScorer
from teacher.label_tokens import Border, find_border
from teacher.prompt import PromptTemplate, Question
from teacher.task import Task, TaskKind

_LEAST_RATIO, _MOST_DIFFERENCE = 8.0, 1e-4
_RIVAL_BATCH = 16
_HEAD_WIDTH, _MAX_TOKENS, _MODEL_VOCABULARY, _TOKENIZER_VOCABULARY = 64, 4096, 32_000, 16_000
_QUESTION = Question("Answer with the name of the one label that fits best, and with nothing else.")
Side = Callable[[Sequence[str]], NDArray[np.float32]]  # prompts -> scores (N, C)


def main() -> int:
    """Measure, print one row, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--texts", type=int, default=4, help="texts a round")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    texts, labels = read_labels(arguments.labels)
    tokenizer = train_tokenizer([*texts, *labels, PromptTemplate.load(None).source])
    model = make_model(arguments.layers, arguments.width)
    print(f"{len(labels)} labels, Llama of {arguments.layers} x {arguments.width}, {torch.get_num_threads()} threads")
    line = measure(model, tokenizer, (texts, labels), arguments.texts, arguments.rounds)
    print(line)
    return 0 if line.holds else 1


def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    data: tuple[Sequence[str], Sequence[str]],
    count: int,
    rounds: int,
) -> Line:
    """Time all sides on `rounds` times `count` texts of `data` (texts, labels)."""
    conversation, (texts, labels) = Conversation(tokenizer), data
    task = Task(TaskKind.SINGLE_LABEL, tuple(labels))
    chosen = [texts[row] for row in np.random.default_rng(0).permutation(len(texts))[: count * rounds + 1]]
    prompts = [_prompt(conversation, task, text) for text in chosen]
    scorer = LabelScorer(model, conversation.encode, _MAX_TOKENS, batch_size=8)
    answers = conversation.answers(prompts[0], labels, ended=False)
    sides: dict[str, Side] = {
        "together": lambda asked: scorer.scores(asked, answers),
        "alone": lambda asked: np.concatenate([scorer.scores([prompt], answers) for prompt in asked]),
        "one_by_one": lambda asked: _separately(model, conversation, asked, answers, separate),
        "in_batches": lambda asked: _separately(model, conversation, asked, answers, _in_batches),
    }
    for side in sides.values():
        side(prompts[-1:])  # warm up, and let the scorer prove its layout
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    worst = score_gap = 0.0
    for number in range(rounds):
        asked = prompts[number * count : (number + 1) * count]
        found = _one_round(sides, asked, seconds, backwards=number % 2 == 1)
        for one, other in itertools.product(("together", "alone"), ("one_by_one", "in_batches")):
            difference = softmax(found[one], axis=1) - softmax(found[other], axis=1)
            worst = max(worst, float(np.abs(difference).max()))
            score_gap = max(score_gap, float(np.abs(found[one] - found[other]).max()))
    rivals = [min(pair) for pair in zip(seconds["one_by_one"], seconds["in_batches"], strict=True)]
    ratios = {name: [b / a for a, b in zip(seconds[name], rivals, strict=True)] for name in ("alone", "together")}
    middle = {name: statistics.median(times) * 1000 / count for name, times in seconds.items()}
    least = statistics.median(ratios["alone"])
    tokens = statistics.median(len(ids) for ids in conversation.encode(prompts))
    return Line(
        "llm_local",
        f"{least:.1f}x (rounds {min(ratios['alone']):.1f} to {max(ratios['alone']):.1f}) for each text alone, "
        f"{statistics.median(ratios['together']):.1f}x for {count} texts that share the prompt's head; "
        + ", ".join(f"{name} {value:.0f} ms" for name, value in middle.items())
        + f" a text; prompts of {tokens:.0f} tokens; largest difference {worst:.1e} of a probability, "
        f"{score_gap:.1e} of a score; layout {scorer.layout}",
        f">= {_LEAST_RATIO:.0f}x the faster rival, probabilities within {_MOST_DIFFERENCE:.0e}",
        least >= _LEAST_RATIO and worst <= _MOST_DIFFERENCE,
    )


def read_labels(path: Path) -> tuple[list[str], list[str]]:
    """Return texts and label names of a data folder, or of a file of label names with a made-up text for each."""
    if path.is_dir():
        with (path / "train.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [row["text"] for row in rows], sorted({row["label"] for row in rows})
    labels = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [f"I have a question about {label.replace('_', ' ')}, what can I do?" for label in labels], labels


def train_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of `texts`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_TOKENIZER_VOCABULARY,
        special_tokens=["<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")


def make_model(layers: int, width: int) -> PreTrainedModel:
    """Return a random Llama with grouped-query attention, its weights large enough that labels differ."""
    torch.manual_seed(0)
    heads = max(width // _HEAD_WIDTH, 1)
    config = LlamaConfig(
        vocab_size=_MODEL_VOCABULARY,
        hidden_size=width,
        intermediate_size=width * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(heads // 2, 1),
        max_position_embeddings=_MAX_TOKENS,
        initializer_range=0.1,
    )
    return LlamaForCausalLM(config).eval()


def _prompt(conversation: Conversation, task: Task, text: str) -> str:
    messages = PromptTemplate.load(None).render(task, text, (), (), range(len(task.labels)), _QUESTION)
    return conversation.spell(messages, _QUESTION.answer)


def _one_round(
    sides: dict[str, Side], asked: Sequence[str], seconds: dict[str, list[float]], *, backwards: bool
) -> dict[str, NDArray[np.float32]]:
    found = {}
    for name in sorted(sides, reverse=backwards):
        started = time.perf_counter()
        found[name] = sides[name](asked)
        seconds[name].append(time.perf_counter() - started)
    return found


def _separately(
    model: PreTrainedModel,
    conversation: Conversation,
    prompts: Sequence[str],
    answers: Sequence[str],
    layout: Callable[..., NDArray[np.float32]],
) -> NDArray[np.float32]:
    border = find_border(conversation.encode, prompts[0], answers)
    tokens = [ids[: len(ids) - border.dropped] for ids in conversation.encode(prompts)]
    return layout(model, tokens, border, _RIVAL_BATCH)


@torch.inference_mode()
def _in_batches(
    model: PreTrainedModel, prompts: Sequence[list[int]], border: Border, batch_size: int
) -> NDArray[np.float32]:
    """Score labels like `separate`, `batch_size` of one prompt at once, padded on the right."""
    scores = np.empty((len(prompts), len(border.continuations)), np.float32)
    longest = max(len(ids) for ids in border.continuations)
    for (row, prompt), start in itertools.product(enumerate(prompts), range(0, len(border.continuations), batch_size)):
        chosen = border.continuations[start : start + batch_size]
        whole = torch.tensor([[*prompt, *ids[:-1], *[0] * (longest - len(ids))] for ids in chosen])
        mask = torch.tensor([[1] * (len(prompt) + len(ids) - 1) + [0] * (longest - len(ids)) for ids in chosen])
        logits = model(input_ids=whole, attention_mask=mask, use_cache=False, logits_to_keep=longest).logits
        for place, ids in enumerate(chosen):
            log_probs = torch.log_softmax(logits[place, : len(ids)], dim=-1)
            scores[row, start + place] = log_probs.gather(1, torch.tensor(ids)[:, None]).mean()
    return scores


if __name__ == "__main__":
    sys.exit(main())
