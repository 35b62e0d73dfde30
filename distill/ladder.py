"""The students that a search tries, from the smallest idea to the largest: names, folders and the overrides to get one.

Knows the shape of the encoder that they start from, and opens no weights.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from distill.config import Config
from distill.spec import SearchSpec
from student.spec import StudentSpec

_DEPTHS = (1, 2, 3, 4, 6)
_INHERITED = ("init", "vocabulary", "max_tokens")
_NAMED = ("width", "heads", "intermediate", "ngram_rows", "ngram_width", *_INHERITED)


@dataclass(frozen=True, slots=True)
class Shape:
    """What a student may take from an encoder: so many layers, so wide, with so many heads."""

    layers: int
    width: int
    heads: int

    def lacks(self, spec: StudentSpec) -> str:
        """Return what a student would need that is not there, empty when nothing is missing."""
        wanted = spec.layers if isinstance(spec.layers, int) else max(spec.layers) + 1
        if spec.kind == "static" or spec.init == "config" or wanted <= self.layers:
            return ""
        return f"it needs {wanted} layers to copy, and the encoder has {self.layers}"


def read_shape(source: str) -> Shape:
    """Return the shape of the checkpoint `source`; opens nothing but its config, and not the library if it is here."""
    path = Path(source) / "config.json"
    if not path.is_file():
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(source)
        return Shape(config.num_hidden_layers, config.hidden_size, config.num_attention_heads)
    found = json.loads(path.read_text(encoding="utf-8"))
    names = (("num_hidden_layers", "n_layers"), ("hidden_size", "dim"), ("num_attention_heads", "n_heads"))
    return Shape(*(int(next(found[name] for name in spellings if name in found)) for spellings in names))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A student to try, under a name that tells it from the others."""

    name: str
    spec: StudentSpec

    @property
    def folder(self) -> str:
        """Return the name as that of a folder."""
        return re.sub(r"[^a-z0-9.]+", "-", self.name.lower()).strip("-")


def candidates(student: StudentSpec, search: SearchSpec, shape: Shape) -> list[Candidate]:
    """Return the students of the ladder that `search` names, or of the default one, each once."""
    inherited = {name: getattr(student, name) for name in _INHERITED}
    entries = [entry.model_dump(exclude_unset=True) for entry in search.ladder or default_ladder(shape)]
    # The keys that `size` stands for are written out by now, and one student has one spelling.
    specs = [StudentSpec.model_validate(inherited | entry | {"size": None}) for entry in entries]
    return [*{name: Candidate(name, spec) for spec in specs for name in [_name(spec, student)]}.values()]


def default_ladder(shape: Shape) -> Iterator[StudentSpec]:
    """Yield a static student, two narrower than the encoder, and as many depths as it has layers for."""
    yield StudentSpec(kind="static")
    # Thirds of a width of 384 are the two smallest BERT miniatures; heads keep their size.
    parts = next((parts for parts in (3, 2) if shape.heads % parts == 0 and shape.width % parts == 0), None)
    if parts:
        for layers, width in ((2, shape.width // parts), (4, shape.width * (parts - 1) // parts)):
            if layers <= shape.layers and width >= 8:
                yield StudentSpec(layers=layers, width=width)
    for layers in _DEPTHS:
        if layers <= shape.layers:
            yield StudentSpec(layers=layers)


def overrides(spec: StudentSpec, config: Config) -> list[str]:
    """Return the `key=value` arguments with which `config` becomes what it is with the student `spec`."""
    wanted, found = (each.model_dump(mode="json") for each in (config.with_student(spec), config))
    return [
        f"{section}.{name}={_spelled(value)}"
        for section in ("student", "train")
        for name, value in wanted[section].items()
        if value != found[section][name]
    ]


def _name(spec: StudentSpec, base: StudentSpec) -> str:
    if spec.kind == "static":
        words = ["static"]
    elif isinstance(spec.layers, int):
        words = [f"{spec.layers} layer{'' if spec.layers == 1 else 's'}"]
    else:
        words = [f"layers {'-'.join(map(str, spec.layers))}"]
    named = [name for name in _NAMED if name not in _INHERITED or getattr(spec, name) != getattr(base, name)]
    words += [f"{name.replace('_', ' ')} {value}" for name in named if (value := getattr(spec, name)) is not None]
    return ", ".join(words)


def _spelled(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
