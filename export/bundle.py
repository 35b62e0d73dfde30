"""The folder that goes to production: written once, described by `potstill.json`, refused when changed.

Knows files, names and hashes; opens no model. The model card is written by `card.py`, the answers are given by
`runtime.py`. Hashes find damage and careless edits; they are no signature, so whoever rewrites a whole bundle still
has to pass the checks on paths, links and tensors. What a bundle remembers is checked by msgspec, which a process that
has to answer at once imports in a tenth of pydantic's time.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta, Struct, ValidationError, convert, field, to_builtins
from msgspec.structs import replace

from export.errors import BundleError, ExportError
from export.gate import Gate
from export.scope import Scope
from export.selective import Abstention
from export.wire import find_dangers

FORMAT = 1
MANIFEST = "potstill.json"
Precision = Literal["int8", "fp32"]
# The names that transformers.js and Optimum look for.
MODEL_FILES: dict[Precision, str] = {"fp32": "onnx/model.onnx", "int8": "onnx/model_quantized.onnx"}
_MUST_HAVE = ("config.json", "tokenizer.json")
_MAY_HAVE = ("tokenizer_config.json", "special_tokens_map.json")
_SUFFIXES = {".json", ".onnx", ".md"}
_MOST_BYTES = 2**31  # what one protobuf file can hold


class FileEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """Size and hash of one file as it was written."""

    bytes: Annotated[int, Meta(ge=0, le=_MOST_BYTES)]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


class Remembered(Struct, frozen=True, forbid_unknown_fields=True):
    """The most probable label of a text and its probability, as a file answered where it was made."""

    text: str
    label: str
    probability: Annotated[float, Meta(ge=0, le=1)]


class BundleManifest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that a loader must know beyond what Hugging Face writes; `labels` stand in the order of the logits.

    `thresholds` (by label name), `abstain` and `scope` were fitted on the file of `precision`, and so was
    `temperature`, by which logits still have to be divided: 1 where the files do that themselves and give
    probabilities. `export` says how the files were made, `answers` what each of them said of some texts there.
    `files` is every other file of the bundle by its POSIX path.
    `digest` is the seal of a manifest that was read: it names this version of the bundle.
    Types and bounds are checked where a manifest is read, what the fields say of each other always (ValueError).
    """

    format: int = FORMAT
    name: str
    kind: Literal["single_label", "multi_label"]
    labels: Annotated[tuple[str, ...], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=1)]
    precision: Precision
    temperature: Annotated[float, Meta(gt=0)] = 1.0
    thresholds: dict[str, float] | None = None
    too_long: Literal["truncate", "refuse"] = "truncate"
    gates: tuple[Gate, ...] = ()
    abstain: Abstention | None = None
    scope: Scope | None = None
    lineage: dict[str, Any] = field(default_factory=dict)
    export: dict[str, Any] = field(default_factory=dict)
    answers: dict[Precision, tuple[Remembered, ...]] = field(default_factory=dict)
    files: dict[str, FileEntry] = field(default_factory=dict)
    digest: str = ""

    def __post_init__(self) -> None:
        """Raise ValueError when a file would leave the folder or names of labels do not fit."""
        _stay_inside(self.files)
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("a label is named twice")
        if self.thresholds is not None and set(self.thresholds) != set(self.labels):
            raise ValueError("thresholds and labels name different labels")
        if not {one.label for given in self.answers.values() for one in given} <= set(self.labels):
            raise ValueError("an answer names a label that is none of the labels")


def write_bundle(
    checkpoint: Path,
    models: Mapping[Precision, Path],
    target: Path,
    manifest: BundleManifest,
    quality: Mapping[str, float],
    more: Mapping[str, bytes] | None = None,
) -> BundleManifest:
    """Fill the empty folder `target` from a checkpoint and its ONNX files; return the manifest with `files`.

    `quality` is metric name to value on the test part, for the model card; `more` are further files by name. Raises
    BundleError when a file is missing, the checkpoint names other labels than the manifest, or no loader would take it.
    """
    import shutil  # no business of those who only load, nor is the card

    from export.card import render_card

    if target.exists() and any(target.iterdir()):
        raise BundleError(f"{target}: found files, wanted an empty folder; remove it first")
    if manifest.precision not in models:
        raise BundleError(f"no {manifest.precision} model among {sorted(models)}; export that precision too")
    sources = {name: checkpoint / name for name in _MUST_HAVE}
    sources |= {name: checkpoint / name for name in _MAY_HAVE if (checkpoint / name).exists()}
    sources |= {MODEL_FILES[precision]: path for precision, path in models.items()}
    for source in sources.values():
        if not source.is_file():
            raise BundleError(f"{source}: not there, but a bundle needs it; export the student again")
    if problems := _label_problems(checkpoint / "config.json", manifest):
        raise BundleError(f"{checkpoint}: {problems[0]}")
    for name, source in sources.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target / name)
    for name, content in (more or {}).items():
        (target / name).write_bytes(content)
    _name_for_clients(target / "config.json")
    _limit_tokens(target / "tokenizer_config.json", manifest.max_tokens)
    _close_up(target / "tokenizer.json")
    (target / "README.md").write_text(render_card(manifest, quality), encoding="utf-8")
    files = {name: _entry((target / name).read_bytes()) for name in sorted([*_names(target)])}
    (target / MANIFEST).write_bytes(_sealed(to_builtins(replace(manifest, files=files), enc_hook=_plain)))
    return read_manifest(target)


def read_manifest(bundle: Path) -> BundleManifest:
    """Return the manifest of `bundle`; raise BundleError when it is missing, newer, changed or malformed."""
    path = bundle / MANIFEST
    try:
        raw = path.read_bytes()
        content = json.loads(raw)
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read ({error.strerror}); pass the folder that `distill run` calls bundle"
        ) from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: is damaged ({error}); copy the bundle again") from error
    if not isinstance(content, dict):
        raise BundleError(f"{path}: found {type(content).__name__}, wanted a mapping; copy the bundle again")
    if isinstance(number := content.get("format"), int) and number > FORMAT:
        raise BundleError(f"{path}: format {number} is newer than {FORMAT}; upgrade potstill")
    if raw != _sealed(content):
        raise BundleError(f"{path}: was changed after it was written; copy or export the bundle again")
    try:
        return convert(content, BundleManifest)
    except ValidationError as error:
        raise BundleError(f"{path}: {error}; export the bundle again") from error


def read_listed(bundle: Path, manifest: BundleManifest, name: str) -> bytes:
    """Return the bytes of one file; raise BundleError unless it is listed, regular and as it was written."""
    entry = manifest.files.get(name)
    if entry is None:
        raise BundleError(f"{bundle}: {name} is not listed in {MANIFEST}; export the bundle again")
    path = bundle / name
    if _crosses_link(bundle, name) or not path.is_file():
        raise BundleError(f"{path}: is missing or no regular file; copy the bundle again")
    found = path.stat().st_size
    if found != entry.bytes:
        raise BundleError(f"{path}: has {found} bytes, wanted {entry.bytes}; copy the bundle again")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise BundleError(f"{path}: its bytes were changed (wrong SHA-256); copy the bundle again")
    if name.endswith(".onnx") and (dangers := find_dangers(content)):
        raise BundleError(f"{path}: {'; '.join(dangers)}; export the bundle again")
    return content


def refuse_strangers(bundle: Path, manifest: BundleManifest) -> None:
    """Raise BundleError when the folder holds a link or a file that the manifest does not list."""
    if problems := _strangers(bundle, manifest):
        raise BundleError(f"{bundle}: {'; '.join(problems)}; remove what does not belong there")


def verify_bundle(bundle: Path) -> list[str]:
    """Return every problem of a bundle, an empty list for a sound one; runs no code of it, never raises."""
    try:
        manifest = read_manifest(bundle)
    except BundleError as error:
        return [str(error)]
    problems = _strangers(bundle, manifest)
    for name in (*_MUST_HAVE, MODEL_FILES[manifest.precision]):
        if name not in manifest.files:
            problems.append(f"{MANIFEST} does not list {name}, which every bundle needs")
    for name in manifest.files:
        try:
            read_listed(bundle, manifest, name)
        except (BundleError, OSError) as error:
            problems.append(str(error))
    return problems or _label_problems(bundle / "config.json", manifest)


def _plain(value: object) -> Any:
    """Return one of numpy's numbers as Python's; raise BundleError for what no manifest can hold."""
    if isinstance(value, np.generic):
        return value.item()
    raise BundleError(f"{MANIFEST}: found a value of type {type(value).__name__}, wanted plain JSON; pass only that")


def _stay_inside(files: Iterable[str]) -> None:
    for name in files:
        parts = name.split("/")
        if not name.isprintable() or "\\" in name or ":" in name or {"", ".", ".."} & set(parts):
            raise ValueError(f"{name!r} is no plain path inside the bundle")
        if Path(name).suffix not in _SUFFIXES or name == MANIFEST:
            raise ValueError(f"{name!r} has no place in a bundle")


def _names(bundle: Path) -> Iterator[str]:
    """Yield the POSIX path of everything but the manifest and plain folders; links are not followed."""
    for folder, folders, files in os.walk(bundle):
        for name in (*files, *(name for name in folders if (Path(folder) / name).is_symlink())):
            relative = (Path(folder) / name).relative_to(bundle).as_posix()
            if relative != MANIFEST or (bundle / MANIFEST).is_symlink():
                yield relative


def _strangers(bundle: Path, manifest: BundleManifest) -> list[str]:
    problems = []
    for name in sorted(_names(bundle)):
        if (bundle / name).is_symlink():
            problems.append(f"{name} is a symbolic link")
        elif name not in manifest.files:
            problems.append(f"{name} is not listed in {MANIFEST}")
    return problems


def _crosses_link(bundle: Path, name: str) -> bool:
    path = bundle / name
    return any(part.is_symlink() for part in (path, *path.parents[: name.count("/")]))


def _label_problems(config_path: Path, manifest: BundleManifest) -> list[str]:
    try:
        names = {int(index): name for index, name in json.loads(config_path.read_bytes())["id2label"].items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        return [f"{config_path.name} has no readable id2label ({error!r}); save the checkpoint again"]
    found = [names[index] for index in sorted(names)]
    if found == list(manifest.labels) and sorted(names) == list(range(len(names))):
        return []
    strange = sorted(set(map(str, found)) ^ set(manifest.labels)) or ["the same names in another order"]
    return [
        f"config.json names {len(found)} labels and {MANIFEST} {len(manifest.labels)}; they differ in: "
        f"{', '.join(strange[:8])}; export the bundle again"
    ]


def _name_for_clients(config: Path) -> None:
    """Call the model what its `client_model_type` says: clients choose the class around the graph by that name.

    All that the class does for them is to feed `input_ids` and `attention_mask`, so one that they know will do.
    """
    content = json.loads(config.read_bytes())
    if known := content.pop("client_model_type", None):
        content |= {"model_type": known, "architectures": None}
        config.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _limit_tokens(tokenizer_config: Path, max_tokens: int) -> None:
    """Tell other clients to cut texts where this runtime cuts them."""
    if tokenizer_config.exists():
        content = json.loads(tokenizer_config.read_bytes())
        content["model_max_length"] = max_tokens
        tokenizer_config.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _close_up(tokenizer: Path) -> None:
    """Leave out the white space between its tokens: a third of the bytes of a whole vocabulary."""
    content = json.loads(tokenizer.read_bytes())
    tokenizer.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def _entry(content: bytes) -> FileEntry:
    if len(content) > _MOST_BYTES:
        raise ExportError(f"a file of {len(content)} bytes does not fit into a bundle; train a smaller student")
    return FileEntry(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def _sealed(content: dict[str, Any]) -> bytes:
    """Return the one spelling of a manifest, with a digest of itself, so that any changed byte shows."""
    body = {name: value for name, value in content.items() if name != "digest"}
    try:
        body["digest"] = hashlib.sha256(json.dumps(body, allow_nan=False).encode()).hexdigest()
        return (json.dumps(body, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"{MANIFEST}: holds a value that JSON cannot spell ({error}); export the bundle again"
        ) from error
