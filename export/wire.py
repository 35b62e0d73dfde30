"""What an ONNX file holds, read from its protobuf bytes without building or running anything.

Finds what a hostile or damaged model uses to reach outside itself: external data, and tensors that claim to
be larger than the file. Knows only the field numbers of onnx.proto that lead to tensors.
"""

import math
from collections.abc import Iterator

# onnx.proto: message -> field number -> message inside it. All other fields are skipped.
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_GRAPH, _DIMS, _NAME, _EXTERNAL_DATA, _DATA_LOCATION = 7, 1, 8, 13, 14
_DEEPEST = 64


class WireError(Exception):
    """The bytes are no protobuf message: cut off or damaged."""


def find_dangers(model: bytes) -> list[str]:
    """Return one sentence a tensor that a loader must not follow, or why the file is no ONNX model."""
    view = memoryview(model)
    try:
        if not any(number == _GRAPH for number, _ in _fields(view)):
            return ["holds no graph"]
        return [danger for tensor in _tensors("model", view, 0) for danger in _judge(tensor, len(model))]
    except WireError as error:
        return [f"is not readable as ONNX: {error}"]


def _tensors(message: str, view: memoryview, depth: int) -> Iterator[memoryview]:
    if depth > _DEEPEST:
        raise WireError(f"nested more than {_DEEPEST} deep")
    for number, value in _fields(view):
        child = _CHILDREN[message].get(number)
        if child is None or isinstance(value, int):
            continue
        if child == "tensor":
            yield value
        else:
            yield from _tensors(child, value, depth + 1)


def _judge(tensor: memoryview, file_bytes: int) -> Iterator[str]:
    dims: list[int] = []
    name, external = "", False
    for number, value in _fields(tensor):
        if number == _DIMS:
            dims.extend([value] if isinstance(value, int) else _packed(value))
        elif number == _NAME and not isinstance(value, int):
            name = bytes(value).decode("utf-8", "replace")
        elif number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value):
            external = True
    if external:
        yield f"tensor {name!r} keeps its data in another file"
    if math.prod(dims) > 2 * file_bytes:  # the smallest element is half a byte
        yield f"tensor {name!r} claims {math.prod(dims)} elements in a file of {file_bytes} bytes"


def _fields(view: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, value): an integer for a varint, the bytes for everything else."""
    at = 0
    while at < len(view):
        tag, at = _varint(view, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, at = _varint(view, at)
            yield number, value
            continue
        if wire_type == 2:
            size, at = _varint(view, at)
        elif wire_type in {1, 5}:
            size = 8 if wire_type == 1 else 4
        else:
            raise WireError(f"unknown wire type {wire_type}")
        if at + size > len(view):
            raise WireError(f"a field of {size} bytes ends behind the end")
        yield number, view[at : at + size]
        at += size


def _packed(view: memoryview) -> Iterator[int]:
    at = 0
    while at < len(view):
        value, at = _varint(view, at)
        yield value


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            raise WireError("a number ends behind the end")
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise WireError("a number has more than 10 bytes")
