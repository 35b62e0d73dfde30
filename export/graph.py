"""A Hugging Face sequence classifier as one fp32 ONNX graph, and the proof that both give the same logits.

Knows nothing of precision, gates or bundles.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from export.coded_rows import store_codes
from export.errors import ExportError
from export.surgery import ATTENTION, REWRITES, Batch, Rewrite, operate

MAX_DIFFERENCE = 1e-4
_OPSET = 20  # the last that the TorchScript exporter writes
_ATTENTION_OPSET, _ATTENTION_IR = 23, 10  # the first with an operator for attention; onnxruntime 1.23 has it
_PROOF_ROWS = 32
_PADDING = 64  # clients pad to the longest text of a batch, or up to a multiple of 8 or 64
_Ids = NDArray[np.int64]


def export_graph(checkpoint: Path, target: Path, texts: Sequence[str] = (), *, plain: bool = False) -> list[Rewrite]:
    """Write the classifier in `checkpoint` to `target` as fp32 ONNX and return what surgery did to it.

    Inputs `input_ids` and `attention_mask`, both int64 (batch, sequence); output `logits` float32
    (batch, labels). Positions that no text can reach are left out, but for some that clients may pad with. Each
    rewrite has to hold on `texts` and on random tokens; `plain` leaves all of them out. Raises ExportError when
    the checkpoint does not load or its graph cannot be traced.
    """
    model = _load_model(checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    batches = _proof_batches(tokenizer, model, texts)
    module, rewrites = operate(model, batches, () if plain else REWRITES, tokenizer.model_max_length + _PADDING)
    ids = torch.ones(2, 5, dtype=torch.int64)  # sizes 0 and 1 would be frozen into the graph
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])  # a mask of ones could be optimised away
    names = ["input_ids", "attention_mask"]
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with warnings.catch_warnings():
            # They tell that a shape may be frozen, which is what `prove_parity` finds out.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                (ids, mask),
                str(target),
                input_names=names,
                output_names=["logits"],
                dynamic_axes={
                    **{name: {0: "batch", 1: "sequence"} for name in names},
                    "logits": {0: "batch"},
                },
                opset_version=_OPSET,
                dynamo=False,  # onnxruntime does not fuse the attention that the dynamo exporter writes
            )
        _finish(target, checkpoint)
    except Exception as error:  # the exporter raises whatever the model's own code raises
        target.unlink(missing_ok=True)
        raise ExportError(
            f"{checkpoint}: cannot be traced to ONNX ({_first_line(error)}); "
            "choose a student architecture that the TorchScript exporter knows, such as BERT"
        ) from error
    return rewrites


def prove_parity(checkpoint: Path, onnx_path: Path, texts: Sequence[str]) -> float:
    """Return the largest absolute difference of the logits of torch and ONNX over odd shapes.

    The shapes (1, 1), (1, longest), (3, 7) and (8, 5) are filled with tokens of `texts`, some of them
    masked. Raises ExportError when the difference is above `MAX_DIFFERENCE` or not a number.
    """
    model = _load_model(checkpoint)
    tokenizer, session = _open(checkpoint, onnx_path)
    streams = _token_streams(tokenizer, texts)
    longest = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", 512))
    worst = 0.0
    for rows, width in ((1, 1), (1, longest), (3, 7), (8, 5)):
        ids, mask = _fill(streams, rows, width)
        with torch.no_grad():
            wanted = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).logits
        found = session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0]
        difference = float(np.abs(found - wanted.numpy()).max())
        if not difference <= MAX_DIFFERENCE:  # also catches NaN
            raise ExportError(
                f"{onnx_path}: logits differ from torch by {difference:.2g} at shape ({rows}, {width}), "
                f"wanted at most {MAX_DIFFERENCE:g}; export {checkpoint} again or choose another architecture"
            )
        worst = max(worst, difference)
    return worst


def _finish(path: Path, checkpoint: Path) -> None:
    model = onnx.load(path)
    store_codes(model.graph, checkpoint)
    _name_attention(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _name_attention(model: onnx.ModelProto) -> None:
    """Let the attention of surgery be ONNX's own; no other operator of such a graph changed up to its opset."""
    domain, _, kind = ATTENTION.partition("::")
    found = [node for node in model.graph.node if (node.domain, node.op_type) == (domain, kind)]
    if not found:
        return
    for node in found:
        node.domain = ""
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", _ATTENTION_OPSET))
    model.ir_version = _ATTENTION_IR


def _load_model(checkpoint: Path) -> PreTrainedModel:
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            checkpoint, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
    except Exception as error:  # safetensors, json and transformers each have their own
        raise ExportError(
            f"{checkpoint}: no sequence classifier to export ({_first_line(error)}); "
            "wanted a folder with config.json and model.safetensors"
        ) from error
    if report["missing_keys"]:  # transformers fills them with random numbers
        raise ExportError(
            f"{checkpoint}: lacks the weights {', '.join(sorted(report['missing_keys']))}; "
            "wanted a trained classifier, so train it first"
        )
    return model.eval()


def _open(checkpoint: Path, onnx_path: Path) -> tuple[PreTrainedTokenizerBase, onnxruntime.InferenceSession]:
    try:
        session = onnxruntime.InferenceSession(onnx_path, providers=["CPUExecutionProvider"])
        return AutoTokenizer.from_pretrained(checkpoint), session
    except Exception as error:  # onnxruntime's errors have no common base
        raise ExportError(
            f"{onnx_path} or the tokenizer of {checkpoint} does not open: {_first_line(error)}; export again"
        ) from error


def _proof_batches(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, texts: Sequence[str]) -> list[Batch]:
    """Return batches of the texts, shortest first and padded, and one of random tokens of which some are masked."""
    ids = torch.randint(model.config.vocab_size, (4, 9), generator=torch.Generator().manual_seed(0))
    if (padding := model.config.pad_token_id) is not None:
        ids[ids == padding] = (padding + 1) % model.config.vocab_size  # RoBERTa counts positions by what is no padding
    batches = [(ids, (torch.arange(9) < torch.tensor([[9], [6], [3], [1]])).long())]
    ordered = sorted(texts, key=len)
    for start in range(0, len(ordered), _PROOF_ROWS):
        rows = tokenizer(ordered[start : start + _PROOF_ROWS], padding=True, truncation=True, return_tensors="pt")
        batches.append((rows["input_ids"], rows["attention_mask"]))
    return batches


def _token_streams(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    streams = [tokenizer(text)["input_ids"] for text in texts[:64]]
    if not any(streams):
        raise ExportError("no text to compare torch and ONNX on; pass at least one text with a token")
    return [stream for stream in streams if stream]


def _fill(streams: Sequence[Sequence[int]], rows: int, width: int) -> tuple[_Ids, _Ids]:
    """Return ids and mask (rows, width): each row starts with another text; every second one is padded."""
    ids, mask = np.zeros((rows, width), np.int64), np.ones((rows, width), np.int64)
    for row in range(rows):
        tokens: list[int] = []
        for following in range(row, row + width):
            tokens.extend(streams[following % len(streams)])
        ids[row] = tokens[:width]
        mask[row, width - row % 2 * (width // 2) :] = 0
    return ids, mask


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
