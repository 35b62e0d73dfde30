"""Embedding tables of an ONNX graph of which most rows are made of codes: the codes are stored in place of the rows.

Reads the file that stands beside such a checkpoint's weights; knows nothing of how codes are found.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, helper, numpy_helper
from safetensors.numpy import load_file

CODES = "coded_tokens.safetensors"
_TOLERANCE = 1e-5
_Arrays = dict[str, NDArray[np.generic]]


def store_codes(graph: GraphProto, checkpoint: Path) -> None:
    """Let every Gather from the embedding table of `checkpoint` make rows up from codes, where a file of codes is.

    That has `places` (tokens,), `codes` (1 + coded, parts), `codebook` (parts, 256, size), `directions` (parts x size,
    width) and `offset` (width,): a token whose place is n + i, behind the n that have rows of their own, reads `offset`
    + the entries of codes[1 + i], in a row, times `directions`. A table that is not what the codes say, because it was
    trained further, stays as it is.
    """
    if not (checkpoint / CODES).is_file():
        return
    coded: _Arrays = load_file(checkpoint / CODES)
    tables = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Gather" and node.input[0] in tables]:
        table = numpy_helper.to_array(tables[node.input[0]])
        own = _own_rows(table, coded)
        if own is None:
            continue
        graph.initializer.remove(tables[node.input[0]])
        at = next(at for at, one in enumerate(graph.node) if one == node)
        del graph.node[at]
        for offset, each in enumerate(_made_up(graph, node, own, coded)):
            graph.node.insert(at + offset, each)


def _own_rows(table: NDArray[np.generic], coded: _Arrays) -> NDArray[np.float32] | None:
    """Return the rows of `table` that are not made of codes, in the order of their places; None where it is another."""
    places, codes, directions = coded["places"], coded["codes"], coded["directions"]
    if table.shape != (len(places), directions.shape[1]):
        return None
    count = len(places) - (len(codes) - 1)
    order = np.argsort(places)
    entries = np.stack([part[code] for part, code in zip(coded["codebook"], codes[1:].T, strict=True)], axis=1)
    rows = entries.reshape(len(entries), -1) @ directions + coded["offset"]
    same = np.allclose(table[order[count:]], rows, atol=_TOLERANCE)
    return np.concatenate([table[order[:count]], coded["offset"][None]]) if same else None


def _made_up(graph: GraphProto, gather: NodeProto, own: NDArray[np.float32], coded: _Arrays) -> list[NodeProto]:
    """Return what stands for `gather`, and add its constants to `graph`."""
    (table, ids), last, codebook = gather.input, len(own) - 1, coded["codebook"]
    constants = {
        "places": coded["places"],
        "rows": own,
        "last": np.int32(last),
        "before": np.int32(last - 1),
        "none": np.int32(0),
        "codes": coded["codes"],
        "starts": np.arange(0, 256 * len(codebook), 256, dtype=np.int32),
        "codebook": codebook.reshape(-1, codebook.shape[2]),
        "flat": np.array([0, 0, -1]),
        "directions": coded["directions"],
    }
    for name, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"{table}.{name}"))

    def step(kind: str, result: str, *given: str, **settings: int) -> NodeProto:
        names = [f"{table}.{name}" if name in constants else f"{gather.name}/{name}" for name in given]
        return helper.make_node(kind, names, [f"{gather.name}/{result}"], f"{gather.name}/{result}", **settings)

    place = helper.make_node("Gather", [f"{table}.places", ids], [f"{gather.name}/place"], f"{gather.name}/place")
    whole = helper.make_node("Add", [f"{gather.name}/{name}" for name in ("own", "coded")], gather.output, gather.name)
    return [
        place,
        step("Min", "row", "place", "last"),
        step("Gather", "own", "rows", "row"),
        step("Sub", "after", "place", "before"),
        step("Max", "code", "after", "none"),
        step("Gather", "bytes", "codes", "code"),
        step("Cast", "entry", "bytes", to=helper.TensorProto.INT32),
        step("Add", "entries", "entry", "starts"),
        step("Gather", "parts", "codebook", "entries"),
        step("Reshape", "joined", "parts", "flat"),
        step("MatMul", "coded", "joined", "directions"),
        whole,
    ]
