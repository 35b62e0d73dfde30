"""Row R9 of the faults: models whose labels or tokenizer do not fit, beside a paid member of a committee."""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from fault_process import fault_process
from lines import Line

from distill.conductor import silence_libraries
from teacher.encoder import Gold
from teacher.errors import TeacherError
from teacher.example import Example, content_id
from teacher.kinds import fit_teacher
from teacher.paid import PaidAnswers
from teacher.spec import CommitteeSpec, EncoderSpec
from teacher.task import Task, TaskKind
from tests.labeller import mock_spec

_LABELS = ("card arrival", "lost card", "exchange rate")
_MOST_SECONDS = 10.0
_TEXTS = ("my card has not come", "i lost my card", "what is the rate today")


def mismatches(scratch: Path, share: float) -> Line:
    """Fit a committee of the mock and a trained encoder that does not fit, in each of its variants."""
    silence_libraries()
    model, gold = _model(scratch / "model"), _gold()
    slowest, survived, unpaid = 0.0, 0, 0
    with fault_process() as server:
        for position, (name, spoil) in enumerate(_VARIANTS.items()):
            folder = scratch / f"variant-{position}"
            shutil.copytree(model, folder / "model")
            spoil(folder / "model")
            encoder = EncoderSpec(model=str(folder / "model"), trained=True, max_tokens=32)
            spec = CommitteeSpec(members=[mock_spec(server.url, folder), encoder])
            before, began, is_refused = server.counts()["asked"], time.monotonic(), False
            with PaidAnswers(folder / "paid.sqlite") as paid:
                try:
                    fit_teacher(spec, gold, folder / "teacher", paid)
                except TeacherError as error:
                    is_refused = "\n" not in str(error)
                except Exception as error:
                    print(f"# {name}: {type(error).__name__}: {error}")
            seconds, calls = time.monotonic() - began, server.counts()["asked"] - before
            slowest = max(slowest, seconds)
            survived += is_refused and calls == 0 and seconds < _MOST_SECONDS
            unpaid += calls == 0
    number = len(_VARIANTS)
    return Line(
        "R9",
        f"injected {number} / survived {survived}: label and tokenizer mismatches, slowest {slowest:.1f} s, {unpaid} "
        "before the first paid call",
        "8 of 8 refused in under 10 s, before the first paid call",
        survived == number == 8,
    )


def _gold() -> Gold:
    rows = [
        Example(content_id(f"{text} {number}"), f"{text} {number}", (label,))
        for text, label in zip(_TEXTS, _LABELS, strict=True)
        for number in range(4)
    ]
    return Gold(Task(TaskKind.SINGLE_LABEL, _LABELS), rows, rows, lambda logits, targets: 0.0)


def _model(folder: Path) -> Path:
    """Write a tiny trained classifier over the labels."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder.mkdir()
    tokenizer = BertWordPieceTokenizer(lowercase=True)
    tokenizer.train_from_iterator([*_TEXTS, "0 1 2 3"], vocab_size=120, min_frequency=1)
    tokenizer.save_model(str(folder))
    fast = BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=64)
    fast.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(fast),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        id2label=dict(enumerate(_LABELS)),
        label2id={name: index for index, name in enumerate(_LABELS)},
        problem_type="single_label_classification",
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def _named(*labels: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        from transformers import BertConfig, BertForSequenceClassification

        config = BertConfig.from_pretrained(folder)
        config.id2label = dict(enumerate(labels))
        config.label2id = {name: index for index, name in enumerate(labels)}
        BertForSequenceClassification(config).save_pretrained(folder)

    return spoil


def _edited(name: str, value: object) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "config.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(content | {name: value}), encoding="utf-8")

    return spoil


def _lose_tokenizer(folder: Path) -> None:
    for path in (*folder.glob("tokenizer*"), *folder.glob("vocab*"), *folder.glob("special_tokens*")):
        path.unlink()


def _grow_tokenizer(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"word{number}" for number in range(50)])
    tokenizer.save_pretrained(folder)


_VARIANTS: Mapping[str, Callable[[Path], None]] = {
    "another label": _named("card arrival", "lost card", "refund"),
    "a label less": _named("card arrival", "lost card"),
    "a label more": _named(*_LABELS, "refund"),
    "another spelling": _named("card_arrival", "lost_card", "exchange_rate"),
    "no names": _named("LABEL_0", "LABEL_1", "LABEL_2"),
    "a head of another size": _edited("id2label", {str(index): name for index, name in enumerate((*_LABELS, "more"))}),
    "a tokenizer with more tokens than the model": _grow_tokenizer,
    "no tokenizer": _lose_tokenizer,
}
