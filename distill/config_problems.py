"""Turn pydantic's errors into lines a person can act on: place, path, what was found, wanted and meant.

Knows the shape of pydantic's errors, not the config's fields; reads no file.
"""

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError

from distill.yaml_lines import Path, Problem, Tree, describe

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_WANTED = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "string_pattern_mismatch": "letters, digits, dots, dashes and underscores, a letter or digit first",
}
_LENGTHS = {
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
    "string_too_short": "at least {min_length} character",
}


def explain(error: ValidationError, model: type[BaseModel], tree: Tree) -> list[Problem]:
    """Return one problem for each wrong place of `tree`, which was validated against `model`."""
    details: dict[Path, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        details.setdefault(_path(detail, tree.value), []).append(detail)
    # A union reports each of its branches; what is wrong inside one says more than that the others differ.
    outer = {path[:length] for path in details for length in range(len(path))}
    problems = []
    for path, found in details.items():
        if path in outer and all(detail["type"].endswith("_type") for detail in found):
            continue
        problems.append(_problem(path, found, model, tree))
    return problems


def _path(detail: "ErrorDetails", value: Any) -> Path:
    """Return the path of `detail` in the file: pydantic's location without the names of union branches."""
    path: Path = ()
    for part in detail["loc"]:
        is_here = part in value if isinstance(value, dict) else isinstance(value, list) and isinstance(part, int)
        if is_here:
            value = value[part]
        if is_here or (detail["type"] == "missing" and part == detail["loc"][-1]):
            path = (*path, part)
    if detail["type"].startswith("union_tag"):
        path = (*path, detail["ctx"]["discriminator"].strip("'"))
    return path


def _problem(path: Path, details: Sequence["ErrorDetails"], model: type[BaseModel], tree: Tree) -> Problem:
    kind = details[0]["type"]
    if kind == "extra_forbidden":
        return Problem(tree.place(path), path, _unknown_key(path, model, tree.value))
    if kind == "value_error":  # one of ours, which says all of it
        return Problem(tree.place(path), path, str(details[0]["ctx"]["error"]))
    spelling = tree.spellings.get(path)
    value = None if kind == "missing" else _value(tree.value, path)
    choices = re.findall(r"'([^']*)'", _choices(details[0]))
    of_right_type = [detail for detail in details if not detail["type"].endswith("_type")]
    wanted = " or ".join(dict.fromkeys(_wanted(detail) for detail in of_right_type or details))
    text = f"found {describe(value, spelling)}, wanted {wanted}"
    if kind == "string_type" and spelling:
        text += f'; write "{spelling}" in quotes'
    elif choices and isinstance(value, str) and (close := get_close_matches(value, choices, 1)):
        text += f"; did you mean {close[0]!r}?"
    elif kind == "model_type" and value is None:
        text += "; remove the line to take the defaults"
    return Problem(tree.place(path), path, text)


def _wanted(detail: "ErrorDetails") -> str:
    if detail["type"] in _WANTED:
        return _WANTED[detail["type"]]
    if detail["type"] == "missing":
        return "a value"
    if detail["type"] in _LENGTHS:
        return _LENGTHS[detail["type"]].format(**detail["ctx"])
    limit = detail["msg"].removeprefix("Input should be ")
    return _choices(detail) or (f"a number {limit}" if limit.startswith(("greater", "less")) else limit)


def _choices(detail: "ErrorDetails") -> str:
    """Return the allowed values as pydantic lists them, or nothing."""
    context = detail.get("ctx", {})
    return str(context.get("expected_tags", context.get("expected", "")))


def _value(value: Any, path: Path) -> object:
    for part in path:
        if isinstance(value, dict) and part not in value:
            return None
        value = value[part]
    return value


def _unknown_key(path: Path, model: type[BaseModel], value: Any) -> str:
    key = str(path[-1])
    models = _models_at(path[:-1], model, value)
    known = sorted({name for each in models for name in each.model_fields})
    text = f"found the unknown key {key!r}"
    if close := get_close_matches(key, known, 1):
        return f"{text}; did you mean {close[0]!r}?"
    elsewhere = [
        f"{section}.{key}"
        for section, field in model.model_fields.items()
        if any(key in each.model_fields for each in _models(field.annotation))
    ]
    if elsewhere:
        return f"{text}; did you mean {' or '.join(elsewhere)}?"
    return f"{text}, wanted one of: {', '.join(known)}"


def _models_at(path: Path, model: type[BaseModel], value: Any) -> list[type[BaseModel]]:
    """Return the models that can stand at `path`, narrowed by the `kind` that the file gives."""
    models = [model]
    for part in path:
        value = value[part]
        if isinstance(part, str):
            fields = [each.model_fields[part].annotation for each in models if part in each.model_fields]
            models = [inner for annotation in fields for inner in _models(annotation)]
    kind = value.get("kind") if isinstance(value, dict) else None
    return [
        each for each in models if "kind" in each.model_fields and each.model_fields["kind"].default == kind
    ] or models


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models named anywhere in a type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
