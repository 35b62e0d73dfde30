"""Embedding tables of an ONNX graph of which most rows are made of codes: the codes are stored in place of the rows.

Reads the file that stands beside such a checkpoint's weights; knows nothing of how codes are found.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

CODES = "coded_tokens.safetensors"
_TOLERANCE = 1e-5
_PRODUCT = "coded"
_Arrays = dict[str, NDArray[np.generic]]


def store_codes(graph: GraphProto, checkpoint: Path) -> None:
    """Let every Gather from the embedding table of `checkpoint` make rows up from codes, where a file of codes is.

    That has `places` (tokens,), `codes` (tokens, parts), `codebook` (parts, 256, size), `directions` (parts x size,
    width) and `offset` (width,): token i reads the row at places[i], of those that tokens have for themselves and
    `offset` behind them, and adds the entries of codes[i], one after the other, times `directions`. A table that is
    not what the codes say, because it was trained further, stays as it is.
    """
    if not (checkpoint / CODES).is_file():
        return
    coded: _Arrays = load_file(checkpoint / CODES)
    tables = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Gather" and node.input[0] in tables]:
        table = numpy_helper.to_array(tables[node.input[0]])
        rows = _own_rows(table, coded)
        if rows is None:
            continue
        graph.initializer.remove(tables[node.input[0]])
        at = next(at for at, one in enumerate(graph.node) if one == node)
        del graph.node[at]
        for offset, each in enumerate(_made_up(graph, node, rows, coded)):
            graph.node.insert(at + offset, each)


def coded_products(graph: GraphProto) -> list[str]:
    """Return the names of the products that make rows up from codes, whose inputs are 0 for tokens with rows."""
    return [node.name for node in graph.node if node.op_type == "MatMul" and node.name.endswith(f"/{_PRODUCT}")]


def _own_rows(table: NDArray[np.generic], coded: _Arrays) -> NDArray[np.generic] | None:
    """Return the rows that places of `coded` count, `offset` the last, if `table` is made of them; else None."""
    places, codes, directions = coded["places"], coded["codes"], coded["directions"]
    if table.shape != (len(places), directions.shape[1]):
        return None
    is_own = places < places.max()
    rows = np.concatenate([table[is_own], coded["offset"][None]])
    entries = np.stack([part[code] for part, code in zip(coded["codebook"], codes.T, strict=True)], axis=1)
    same = np.allclose(table, rows[places] + entries.reshape(len(table), -1) @ directions, atol=_TOLERANCE)
    return rows if same else None


def _made_up(graph: GraphProto, gather: NodeProto, rows: NDArray[np.generic], coded: _Arrays) -> list[NodeProto]:
    """Return what stands for `gather`, and add its constants to `graph`."""
    (table, ids), codebook = gather.input, coded["codebook"]
    constants = {
        "places": coded["places"],
        "rows": rows,
        "codes": coded["codes"],
        "starts": np.arange(0, 256 * len(codebook), 256, dtype=np.int32),
        "codebook": codebook.reshape(-1, codebook.shape[2]),
        "flat": np.array([0, 0, -1]),
        "directions": coded["directions"],
    }
    for name, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(value, f"{table}.{name}"))

    def named(name: str) -> str:
        return f"{table}.{name}" if name in constants else f"{gather.name}/{name}"

    def step(kind: str, result: str, *given: str, **settings: int) -> NodeProto:
        inputs = [name if name == ids else named(name) for name in given]
        return helper.make_node(kind, inputs, [named(result)], named(result), **settings)

    whole = helper.make_node("Add", [named("row"), named(_PRODUCT)], gather.output, gather.name)
    return [
        step("Gather", "place", "places", ids),
        step("Gather", "row", "rows", "place"),
        step("Gather", "bytes", "codes", ids),
        step("Cast", "numbers", "bytes", to=TensorProto.INT32),
        step("Add", "entries", "numbers", "starts"),
        step("Gather", "parts", "codebook", "entries"),
        step("Reshape", "joined", "parts", "flat"),
        step("MatMul", _PRODUCT, "joined", "directions"),
        whole,
    ]
