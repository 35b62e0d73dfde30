"""The model card of a bundle: Markdown that the Hugging Face hub and people read.

Says only what the manifest and the measured quality say.
"""

from collections.abc import Mapping

import yaml

from export.bundle import MODEL_FILES, BundleManifest

_MOST_LABELS = 200
_TEMPLATE = """---
{metadata}---

# {name}

A {kind} text classifier over {count} labels, distilled to run on a CPU. It reads at most {max_tokens} tokens;
a longer text is {too_long}. The file measured below is `{model}` ({precision}).

## Quality on the test part

{quality}

## Gates

What the int8 file lost against the fp32 student on dev and pool texts:

{gates}

## Use

```python
from export.runtime import Predictor

print(Predictor.load("path/to/this/folder").predict("a text")[0].label)
```

`optimum.onnxruntime.ORTModelForSequenceClassification` and transformers.js open the same folder. The logits
{temperature}: {activation} of them gives the calibrated probabilities.

## Limits

- An int8 answer shifts slightly with padding and with the other texts of a batch. One text alone always gives
  the same bits on the same machine.
- {scope}

## Labels

{labels}

## Lineage

{lineage}
"""


def render_card(manifest: BundleManifest, quality: Mapping[str, float]) -> str:
    """Return README.md for a bundle; `quality` is metric name to value on the test part."""
    shown = ", ".join(f"`{label}`" for label in manifest.labels[:_MOST_LABELS])
    hidden = len(manifest.labels) - _MOST_LABELS
    return _TEMPLATE.format(
        metadata=yaml.safe_dump(_metadata(manifest, quality), sort_keys=False, allow_unicode=True),
        name=manifest.name,
        kind=manifest.kind.replace("_", "-"),
        count=len(manifest.labels),
        max_tokens=manifest.max_tokens,
        too_long="cut, and the answer says so" if manifest.too_long == "truncate" else "refused",
        model=MODEL_FILES[manifest.precision],
        precision=manifest.precision,
        scope=_scope(manifest),
        quality=_table(("metric", "value"), [(name, f"{value:.4f}") for name, value in quality.items()]),
        gates=_table(
            ("gate", "value", "limit", "passed", "detail"),
            [
                (
                    gate.name,
                    f"{gate.value:.4g}",
                    f"{gate.limit:.4g}",
                    "yes" if gate.passed else "no",
                    gate.detail,
                )
                for gate in manifest.gates
            ],
        ),
        temperature="need no temperature any more"
        if manifest.temperature == 1
        else f"have to be divided by the temperature {manifest.temperature:.6g} first",
        activation="the softmax" if manifest.kind == "single_label" else "the sigmoid",
        labels=shown + (f" and {hidden} more in `config.json`" if hidden > 0 else ""),
        lineage=_table(("what", "value"), [(name, str(value)) for name, value in manifest.lineage.items()]),
    )


def _scope(manifest: BundleManifest) -> str:
    if manifest.scope is None:
        return "A label is always one of those below, even for a text that is about none of them."
    return (
        "A label is always one of those below. Where an answer's `in_scope` is false the text seems to be about "
        f"none of them; {1 - manifest.scope.keep:.2g} of the answers that were right on dev are lost to that."
    )


def _metadata(manifest: BundleManifest, quality: Mapping[str, float]) -> dict[str, object]:
    task = {"type": "text-classification", "name": "Text Classification"}
    metrics = [{"type": name, "value": round(value, 6)} for name, value in quality.items()]
    result = {"task": task, "dataset": {"name": manifest.name, "type": manifest.name}, "metrics": metrics}
    return {
        "pipeline_tag": "text-classification",
        "library_name": "onnx",
        "tags": ["potstill", "onnx", "distillation", manifest.precision],
        "model-index": [{"name": manifest.name, "results": [result] if metrics else []}],
    }


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return "None recorded."
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
