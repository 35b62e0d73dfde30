"""Build a student: a sequence classifier whose layers and embeddings are copied from a larger one, or random.

Knows nothing of who the teacher is; a source is a checkpoint folder. The result is a standard Hugging Face
checkpoint, so `AutoModelForSequenceClassification.from_pretrained` opens it.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from student.errors import StudentError
from student.spec import StudentSpec


@dataclass(frozen=True, slots=True)
class Head:
    """What the student answers: labels in order and the problem type Hugging Face knows them by."""

    labels: tuple[str, ...]
    problem_type: str


def build_student(
    source: str, spec: StudentSpec, head: Head, kept_ids: NDArray[np.int64] | None, seed: int
) -> PreTrainedModel:
    """Return a classifier with the chosen layers of the checkpoint `source`.

    `kept_ids` (rows of the trimmed vocabulary) selects embedding rows; None keeps all. With
    `spec.init == "config"` only the architecture of `source` is used and the weights are random. The
    classifier is copied where the source already answers the same labels, else it starts anew.
    Raises StudentError when the layers asked for are not there.
    """
    torch.manual_seed(seed)
    config = AutoConfig.from_pretrained(source)
    chosen = choose_layers(spec.layers, config.num_hidden_layers, copies=spec.init != "config")
    shape = _student_config(config, spec, head, len(chosen), kept_ids)
    student = AutoModelForSequenceClassification.from_config(shape)
    if spec.init != "config":
        same_labels = [config.id2label.get(index) for index in range(config.num_labels)] == list(head.labels)
        original = AutoModelForSequenceClassification.from_pretrained(
            source, dtype=torch.float32, **({} if same_labels else _label_options(head))
        )
        _copy_weights(original, student, chosen, kept_ids)
    return student


def choose_layers(layers: int | Sequence[int], available: int, *, copies: bool = True) -> list[int]:
    """Return the source layers to copy: those named, or `layers` of them spread from the first to the last.

    Raises StudentError when a named layer does not exist or more are wanted than there are to copy.
    """
    if not isinstance(layers, int):
        strangers = [layer for layer in layers if not 0 <= layer < available]
        if strangers or not layers or sorted(set(layers)) != list(layers):
            raise StudentError(
                f"found student.layers {list(layers)}, wanted rising layer numbers from 0 to {available - 1}"
            )
        return list(layers)
    if layers < 1 or (copies and layers > available):
        raise StudentError(
            f"found student.layers {layers}, wanted 1 to {available}: the source has {available} layers to copy"
        )
    if not copies:
        return list(range(layers))
    if layers == 1:
        return [available - 1]
    return [round(position * (available - 1) / (layers - 1)) for position in range(layers)]


def parameter_count(model: torch.nn.Module) -> int:
    """Return the number of parameters of `model`, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def _label_options(head: Head) -> dict[str, object]:
    return {
        "id2label": dict(enumerate(head.labels)),
        "label2id": {name: index for index, name in enumerate(head.labels)},
        "problem_type": head.problem_type,
    }


def _student_config(
    source: PreTrainedConfig, spec: StudentSpec, head: Head, layers: int, kept_ids: NDArray[np.int64] | None
) -> PreTrainedConfig:
    shape = copy.deepcopy(source)
    for name, value in _label_options(head).items():
        setattr(shape, name, value)
    if getattr(shape, "layer_types", None):
        shape.layer_types = shape.layer_types[:layers]
    shape.num_hidden_layers = layers
    if kept_ids is not None:
        shape.vocab_size = len(kept_ids)
        if shape.pad_token_id is not None:
            shape.pad_token_id = int(np.flatnonzero(kept_ids == shape.pad_token_id)[0])
    if spec.init == "config" and spec.width:
        shape.hidden_size, shape.intermediate_size = spec.width, 4 * spec.width
    if spec.init == "config" and spec.heads:
        shape.num_attention_heads = spec.heads
    if shape.hidden_size % shape.num_attention_heads:
        raise StudentError(
            f"found width {shape.hidden_size} with {shape.num_attention_heads} heads; the width must be a multiple "
            "of the heads: set student.heads"
        )
    return shape


def _copy_weights(
    original: PreTrainedModel, student: PreTrainedModel, chosen: Sequence[int], kept_ids: NDArray[np.int64] | None
) -> None:
    prefix = _layer_prefix(original)
    renamed = {f"{prefix}{layer}.": f"{prefix}{position}." for position, layer in enumerate(chosen)}
    weights = {}
    for name, tensor in original.state_dict().items():
        if not name.startswith(prefix):
            weights[name] = tensor
            continue
        layer = name[: name.index(".", len(prefix)) + 1]
        if layer in renamed:
            weights[renamed[layer] + name[len(layer) :]] = tensor
    if kept_ids is not None:
        rows = torch.from_numpy(kept_ids)
        words = original.get_input_embeddings().weight
        for name, tensor in weights.items():
            if tensor.shape == words.shape and tensor.data_ptr() == words.data_ptr():
                weights[name] = tensor[rows]
    student.load_state_dict(weights)


def _layer_prefix(model: PreTrainedModel) -> str:
    """Return the dotted name under which the numbered transformer layers of `model` stand."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == model.config.num_hidden_layers:
            return f"{name}."
    raise StudentError(
        f"found no list of {model.config.num_hidden_layers} layers in {type(model).__name__}; "
        "start the student from another checkpoint (student.init)"
    )
