"""Build a student: a sequence classifier whose layers and embeddings are copied from a larger one, or random.

Knows nothing of who the teacher is; a source is a checkpoint folder. The result is a standard Hugging Face
checkpoint, so `AutoModelForSequenceClassification.from_pretrained` opens it.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from student.errors import StudentError
from student.narrow import Rows, narrow
from student.spec import StudentSpec
from student.warm_start import build_static

# A student sees the teacher's answer to every text, so there is nothing to regularise away; it only costs time.
_DROPOUTS = {
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "dropout",
    "attention_dropout",
    "seq_classif_dropout",
    "embedding_dropout",
    "mlp_dropout",
}
_TOKEN_IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")


_POOLER_SCALE = 0.1
_FIRST_DIFFERS = {"modernbert"}  # its layer 0 lacks the norm that every other layer starts with


@dataclass(frozen=True, slots=True)
class Head:
    """What the student answers: labels in order and the problem type Hugging Face knows them by."""

    labels: tuple[str, ...]
    problem_type: str


def build_student(
    source: str,
    spec: StudentSpec,
    head: Head,
    kept_ids: NDArray[np.int64] | None,
    seed: int,
    sample: Rows = (),
) -> PreTrainedModel:
    """Return a classifier of the kind `spec.kind` that starts from the checkpoint `source`.

    `kept_ids` (tokens of a smaller vocabulary) selects embedding rows; None keeps all. With
    `spec.init == "config"` only the architecture of `source` is used and the weights are random. The
    classifier is copied where the source already answers the same labels, else it starts anew. A width other
    than the source's is measured on `sample`, rows of token ids of the student's own vocabulary.
    Raises StudentError when the layers asked for are not there, or cannot be made narrower.
    """
    torch.manual_seed(seed)
    config = AutoConfig.from_pretrained(source)
    if spec.kind == "static":
        if kept_ids is not None:
            config = _trimmed(config, kept_ids)
        rows = None if kept_ids is None else torch.from_numpy(kept_ids)
        return build_static(source, spec, config, _label_options(head), rows)
    chosen = source_layers(spec, config)
    shape = _student_config(config, head, chosen, kept_ids)
    narrower = _resized(shape, spec)
    if spec.init == "config":
        return _from_config(narrower)
    student = _from_config(shape)
    original = AutoModelForSequenceClassification.from_pretrained(source, dtype=torch.float32)
    weights = _copied_weights(original, student, chosen, kept_ids)
    if [config.id2label.get(index) for index in range(config.num_labels)] != list(head.labels):
        weights |= _answer_weights(student)
    _load_weights(student, weights, chosen)
    if narrower.to_dict() == shape.to_dict():
        return student
    wide, student = student, _from_config(narrower)
    narrow(wide, student, sample)
    return student


def adopt_head(student: PreTrainedModel, weight: torch.Tensor, bias: torch.Tensor) -> bool:
    """Let a fresh `student` begin as the linear head `weight` (C, hidden), `bias` (C,) on its last hidden state.

    The tanh pooler of BERT starts as a small multiple of the identity, where tanh is all but linear, and the
    classifier undoes the factor. Returns False, changing nothing, for a student without such a pooler or of
    another width, unless it was made narrower and knows how.
    """
    if (basis := getattr(student, "last_basis", None)) is not None:
        weight, bias = weight @ basis.directions, bias + weight @ basis.lost()
    pooler = getattr(getattr(student.base_model, "pooler", None), "dense", None)
    classifier = getattr(student, "classifier", None)
    if not (isinstance(pooler, torch.nn.Linear) and isinstance(classifier, torch.nn.Linear)):
        return False
    if classifier.weight.shape != weight.shape or pooler.in_features != pooler.out_features:
        return False
    with torch.no_grad():
        pooler.weight.copy_(_POOLER_SCALE * torch.eye(len(pooler.weight)))
        pooler.bias.zero_()
        classifier.weight.copy_(weight / _POOLER_SCALE)
        classifier.bias.copy_(bias)
    return True


def source_layers(spec: StudentSpec, source: PreTrainedConfig) -> list[int]:
    """Return which layer of `source` each layer of a transformer student is made after; raise as `choose_layers`."""
    copies, keeps_first = spec.init != "config", source.model_type in _FIRST_DIFFERS
    return choose_layers(spec.layers, source.num_hidden_layers, copies=copies, keeps_first=keeps_first)


def choose_layers(
    layers: int | Sequence[int], available: int, *, copies: bool = True, keeps_first: bool = False
) -> list[int]:
    """Return the source layers to copy: those named, or the last of each of `layers` blocks as equal as can be.

    With `keeps_first` they are spread from the first to the last instead. Raises StudentError when a named layer does
    not exist or more are wanted than there are to copy.
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
    if keeps_first and layers > 1:
        return [round(position * (available - 1) / (layers - 1)) for position in range(layers)]
    return [(position + 1) * available // layers - 1 for position in range(layers)]


def renumber_tokens(config: PreTrainedConfig, new_ids: Mapping[int, int], tokens: int) -> PreTrainedConfig:
    """Return `config` for a vocabulary of `tokens` in which a special token has its new id, None without one."""
    renumbered = copy.deepcopy(config)
    renumbered.vocab_size = tokens
    for name in _TOKEN_IDS:
        old = getattr(renumbered, name, None)
        if isinstance(old, int):
            setattr(renumbered, name, new_ids.get(old))
    return renumbered


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
    source: PreTrainedConfig, head: Head, chosen: Sequence[int], kept_ids: NDArray[np.int64] | None
) -> PreTrainedConfig:
    shape = copy.deepcopy(source)
    shape.update(_label_options(head) | dict.fromkeys(_DROPOUTS & set(vars(shape)), 0.0))
    if kinds := getattr(shape, "layer_types", None):
        shape.layer_types = [kinds[layer % len(kinds)] for layer in chosen]
    shape.num_hidden_layers = len(chosen)
    return shape if kept_ids is None else _trimmed(shape, kept_ids)


def _trimmed(shape: PreTrainedConfig, kept_ids: NDArray[np.int64]) -> PreTrainedConfig:
    return renumber_tokens(shape, {int(old): new for new, old in enumerate(kept_ids)}, len(kept_ids))


def _resized(shape: PreTrainedConfig, spec: StudentSpec) -> PreTrainedConfig:
    """Return `shape` with the sizes of `spec`; where it copies, heads keep their size and no layer gets wider."""
    resized = copy.deepcopy(shape)
    feed_forward = "hidden_dim" if hasattr(shape, "hidden_dim") else "intermediate_size"
    if spec.width:
        units, resized.hidden_size = 4 * spec.width, spec.width
        if spec.init != "config":
            units = min(units, getattr(shape, feed_forward))
            resized.num_attention_heads = max(shape.num_attention_heads * spec.width // shape.hidden_size, 1)
        setattr(resized, feed_forward, units)
    if spec.heads:
        resized.num_attention_heads = spec.heads
    if spec.intermediate:
        setattr(resized, feed_forward, spec.intermediate)
    if resized.hidden_size % resized.num_attention_heads:
        raise StudentError(
            f"found width {resized.hidden_size} with {resized.num_attention_heads} heads; the width must be a "
            "multiple of the heads: set student.heads"
        )
    return resized


def _from_config(shape: PreTrainedConfig) -> PreTrainedModel:
    return AutoModelForSequenceClassification.from_config(shape, attn_implementation="eager")


def _copied_weights(
    original: PreTrainedModel, student: PreTrainedModel, chosen: Sequence[int], kept_ids: NDArray[np.int64] | None
) -> dict[str, torch.Tensor]:
    prefix = f"{layer_stack(original)[0]}."
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
    return weights


def _answer_weights(student: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return the weights of the layer that gives a logit to each label, as they were initialised."""
    body, labels = f"{student.base_model_prefix}.", student.config.num_labels
    return {
        name: tensor
        for name, tensor in student.state_dict().items()
        if not name.startswith(body) and tensor.shape[:1] == (labels,)
    }


def _load_weights(student: PreTrainedModel, weights: Mapping[str, torch.Tensor], chosen: Sequence[int]) -> None:
    try:
        student.load_state_dict(weights)
    except RuntimeError as error:
        raise StudentError(
            f"the layers {list(chosen)} of {type(student).__name__} do not fit into a student "
            f"({str(error).splitlines()[-1].strip()}); list layers that include layer 0 under student.layers"
        ) from error


def layer_stack(model: PreTrainedModel) -> tuple[str, torch.nn.ModuleList]:
    """Return the numbered transformer layers of `model` and the dotted name under which they stand."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == model.config.num_hidden_layers:
            return name, module
    raise StudentError(
        f"found no list of {model.config.num_hidden_layers} layers in {type(model).__name__}; "
        "start the student from another checkpoint (student.init)"
    )
