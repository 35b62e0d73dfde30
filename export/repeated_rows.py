"""Embedding tables of an ONNX graph in which tokens share rows: each row is stored once, behind a table of places.

Exact, whatever the tokens are. Knows nothing of why rows repeat.
"""

import numpy as np
from onnx import GraphProto, helper, numpy_helper

_WORTH = 0.9  # of the bytes that may be left, else the detour is not worth its step


def store_rows_once(graph: GraphProto) -> None:
    """Let every Gather from a constant table (tokens, width) with repeated rows look up its row's place first.

    The places are int32 (tokens,). A table stays as it is where that saves less than a tenth of its bytes.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Gather"]:
        name, ids = node.input
        tensor = constants.get(name)
        if tensor is None or len(tensor.dims) != 2 or any(item.name == "axis" and item.i for item in node.attribute):
            continue
        table = np.ascontiguousarray(numpy_helper.to_array(tensor))
        as_bytes = table.view(np.dtype((np.void, table.itemsize * table.shape[1]))).ravel()
        owners, places = np.unique(as_bytes, return_index=True, return_inverse=True)[1:]
        if len(owners) * table.shape[1] * table.itemsize + 4 * len(table) > _WORTH * table.nbytes:
            continue
        graph.initializer.remove(tensor)
        graph.initializer.append(numpy_helper.from_array(table[owners], f"{name}.rows"))
        graph.initializer.append(numpy_helper.from_array(places.astype(np.int32), f"{name}.places"))
        found = helper.make_node("Gather", [f"{name}.places", ids], [f"{name}.place"], f"{node.name}/place")
        graph.node.insert(next(at for at, one in enumerate(graph.node) if one is node or one == node), found)
        node.input[:] = [f"{name}.rows", f"{name}.place"]
