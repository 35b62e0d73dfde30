"""Which layers of a student suffer most from int8, so that those can stay fp32 and the rest need not.

A layer is judged by what its products do to the answers: KL of the student to a file in which this layer alone
is fp32. Knows nothing of gates.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from export.coverage import load_graph
from export.metrics import Floats, Kind, mean_kl

_LAYER = re.compile(r"layers?\.\d+")
_TABLES = {"Gather"}
_PRODUCTS = {"MatMul", "Gemm"}


def layers_of(graph: Path) -> dict[str, list[str]]:
    """Return the nodes with constant weights of an fp32 file by layer; what is in no layer goes by its first name."""
    model = load_graph(graph)
    weights = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) > 1}
    layers: dict[str, list[str]] = {}
    for node in model.graph.node:
        if node.op_type in _PRODUCTS | _TABLES and weights & set(node.input):
            found = _LAYER.search(node.name)
            layers.setdefault(found.group() if found else node.name.strip("/").partition("/")[0], []).append(node.name)
    return layers


def worst_first(
    layers: Mapping[str, Sequence[str]],
    answer_keeping: Callable[[Sequence[str]], Floats],
    reference: Floats,
    kind: Kind,
) -> list[str]:
    """Return the layers by how near the answers come to `reference` when the nodes of that layer stay fp32.

    `answer_keeping` returns the probabilities (texts, labels) of a file in which the given nodes are fp32.
    """
    divergence = {name: mean_kl(kind, reference, answer_keeping(nodes)) for name, nodes in layers.items()}
    return sorted(divergence, key=lambda name: divergence[name])
