"""Read YAML into plain values, keep the line of every value, and refuse what YAML would silently change.

Knows nothing of the config's fields. Built on PyYAML's safe constructor: no tag can run code.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import yaml

Path = tuple[str | int, ...]
"""Where a value stands: keys and list positions from the top."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong at one place of a config; `place` is `file:line` or the command-line argument."""

    place: str
    path: Path
    text: str

    def __str__(self) -> str:
        """Return `place: path: text`."""
        return ": ".join(part for part in (self.place, dotted(self.path), self.text) if part)


@dataclass(slots=True)
class Tree:
    """Plain values with the place and the spelling of each, and the problems met while reading them."""

    value: object = None
    places: dict[Path, str] = field(default_factory=dict)
    spellings: dict[Path, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def place(self, path: Path) -> str:
        """Return the place of the value at `path`, or of the nearest thing around it."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, "")


class _Loader(yaml.SafeLoader):
    """The safe loader, which also reads 1e-4 as a number (YAML 1.1 wants 1.0e-4)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"), list("-+0123456789")
)
_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_YAML_ERRORS = (yaml.YAMLError, ValueError, RecursionError)


def read_yaml(text: str, source: str, *, lines: bool = True) -> Tree:
    """Return the values of one YAML document; what is wrong with it is in `problems`, never raised.

    `source` names the text; `lines` adds the line number to it.
    """
    tree = Tree(places={(): source})
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None:
            tree.value = _Reader(tree, loader, source, lines).read(node, ())
    except _YAML_ERRORS as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{source}:{mark.line + 1}" if lines and mark is not None else source
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or type(error).__name__
        tree.problems.append(Problem(place, (), f"found text that is not YAML ({reason}); correct the spelling"))
    finally:
        if loader is not None:
            loader.dispose()
    return tree


@dataclass(frozen=True, slots=True)
class _Reader:
    """Turns YAML nodes into values of `tree`."""

    tree: Tree
    loader: _Loader
    source: str
    lines: bool
    seen: set[int] = field(default_factory=set)

    def read(self, node: yaml.Node, path: Path) -> object:
        """Return the value of `node`, which stands at `path`."""
        self.tree.places.setdefault(path, self._place(node))
        if id(node) in self.seen:
            # An alias can hold itself or multiply without end; configs are small enough to do without.
            return self._refuse(node, path, "found a YAML alias, wanted the value itself; write it out")
        self.seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            return self._read_scalar(node, path)
        if node.tag not in _PLAIN_TAGS:
            return self._refuse(node, path, f"found the YAML tag {node.tag!r}, wanted none; remove it")
        if isinstance(node, yaml.MappingNode):
            return dict(self._read_entries(node, path))
        return [self.read(item, (*path, index)) for index, item in enumerate(node.value)]

    def _read_entries(self, node: yaml.MappingNode, path: Path) -> Iterator[tuple[str, object]]:
        first_places: dict[str, str] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
            here = (*path, key)
            if key in first_places:
                text = f"found the key {key!r} twice, first at {first_places[key]}; keep one of them"
                self._refuse(key_node, here, text)
                continue
            first_places[key] = self.tree.places[here] = self._place(key_node)
            if not isinstance(self._read_key(key_node), str):
                text = f"found a key that YAML does not read as text; {_quoting(key)}"
                self._refuse(key_node, here, text)
            yield key, self.read(value_node, here)

    def _read_key(self, node: yaml.Node) -> object:
        """Return the value of a key; a merge key (<<) is left as text and refused as an unknown key."""
        if not isinstance(node, yaml.ScalarNode):
            return None
        return node.value if node.tag.endswith(":merge") else self._construct(node)

    def _read_scalar(self, node: yaml.ScalarNode, path: Path) -> object:
        self.tree.spellings[path] = str(node.value)
        try:
            value = self._construct(node)
        except _YAML_ERRORS:
            text = f"found {node.value!r}, which is no valid {_tag_name(node)}; {_quoting(node.value)}"
            return self._refuse(node, path, text)
        if value is None or isinstance(value, str | bool | int | float):
            return value
        text = f"found the {_tag_name(node)} {node.value}, wanted text or a number; {_quoting(node.value)}"
        return self._refuse(node, path, text)

    def _construct(self, node: yaml.ScalarNode) -> object:
        value: object = self.loader.construct_object(node)
        return value

    def _refuse(self, node: yaml.Node, path: Path, text: str) -> object:
        """Note a problem and return the value to go on with."""
        self.tree.problems.append(Problem(self._place(node), path, text))
        return str(node.value) if isinstance(node, yaml.ScalarNode) else None

    def _place(self, node: yaml.Node) -> str:
        return f"{self.source}:{node.start_mark.line + 1}" if self.lines else self.source


def dotted(path: Path) -> str:
    """Return the path as people write it: `task.labels[2]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def describe(value: object, spelling: str | None) -> str:
    """Return what was found, with its spelling where YAML read it as something else."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    if value is None and not spelling:
        return "nothing"
    kind = "the boolean " if isinstance(value, bool) else "" if value is None else "the number "
    shown = "null" if value is None else str(value).lower()
    return f"{kind}{shown}" + (f" (written {spelling})" if spelling and spelling != shown else "")


def _quoting(spelling: str) -> str:
    return f'write "{spelling}" in quotes if it is meant as text'


def _tag_name(node: yaml.Node) -> str:
    name = node.tag.rsplit(":", 1)[-1]
    return {"timestamp": "date", "int": "number", "float": "number"}.get(name, name)
