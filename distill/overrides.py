"""Merge `key=value` arguments into what was read from a config file: the one place where they meet.

Knows nothing of the config's fields; validation comes after.
"""

from collections.abc import Sequence
from typing import Any

from distill.yaml_lines import Path, Problem, Tree, read_yaml


def merge_overrides(tree: Tree, overrides: Sequence[str]) -> None:
    """Put each `key=value`, its value read as YAML, over the mapping in `tree`; later ones win.

    A key is dotted (`train.epochs`, `teacher.members.0.model`). What is wrong goes to `tree.problems`.
    """
    for override in overrides:
        place = f"argument {override!r}"
        key, equals, text = override.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            wanted = "found no key=value, wanted something like train.epochs=4"
            tree.problems.append(Problem(place, (), wanted))
            continue
        read = read_yaml(text, place, lines=False)
        path = _set(tree, parts, read.value, place)
        if path is not None:
            _replace_places(tree, path, read)


def _set(tree: Tree, parts: Sequence[str], value: object, place: str) -> Path | None:
    """Set `value` under the keys `parts`; return its path, or None where the keys meet no mapping."""
    parent: Any = tree.value
    path: Path = ()
    for depth, part in enumerate(parts, 1):
        step = int(part) if isinstance(parent, list) and part.isdecimal() else part
        if not (isinstance(parent, dict) or (isinstance(step, int) and step < len(parent))):
            whole = ".".join(parts[: depth - 1])
            text = f"found no mapping to set {part!r} in, wanted one; set {whole} as a whole"
            tree.problems.append(Problem(place, path, text))
            return None
        path = (*path, step)
        if depth == len(parts):
            parent[step] = value
        else:
            if isinstance(parent, dict) and parent.get(part) is None:
                parent[step] = {}
                tree.places[path] = place
            parent = parent[step]
    return path


def _replace_places(tree: Tree, path: Path, read: Tree) -> None:
    """Forget where the old value at `path` stood and what was wrong with it, and note the new one."""
    tree.problems = [problem for problem in tree.problems if not _is_under(problem.path, path)]
    tree.places = {each: place for each, place in tree.places.items() if not _is_under(each, path)}
    tree.spellings = {each: text for each, text in tree.spellings.items() if not _is_under(each, path)}
    tree.places |= {path + below: place for below, place in read.places.items()}
    tree.spellings |= {path + below: text for below, text in read.spellings.items()}
    tree.problems += [Problem(each.place, path + each.path, each.text) for each in read.problems]


def _is_under(path: Path, top: Path) -> bool:
    return path[: len(top)] == top
