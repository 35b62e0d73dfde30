"""How far do the answers of a file shift with padding and with other texts in the batch?

With int8 activations whose scale is taken from the whole batch they do; the shift may be no larger than what
int8 itself is allowed. Knows nothing of labels.
"""

from collections.abc import Sequence

import numpy as np

from export.classifier import PROBABILITIES, OnnxClassifier
from export.gate import Gate, at_most
from export.metrics import Floats, Kind, mean_kl

_TEXTS = 256
_PADDING = 16  # tokens


def judge_company(
    classifier: OnnxClassifier, texts: Sequence[str], kind: Kind, alone: Floats, max_kl: float
) -> list[Gate]:
    """Return a gate for padding and one for batches, against the answers `alone` (texts, labels).

    The file has to end with probabilities. Each gate is the mean KL in nats over the first texts.
    """
    encodings = classifier.encode_many(texts[:_TEXTS])
    reference = alone[: len(encodings)]
    company = {
        "padding_shift": (classifier.run_padded(encodings, _PADDING, PROBABILITIES), f"{_PADDING} tokens of padding"),
        "batch_shift": (classifier.run_many(encodings, PROBABILITIES), "batches of similar length"),
    }
    return [
        at_most(
            name,
            mean_kl(kind, reference, found),
            max_kl,
            f"mean KL(alone || with {words}) in nats over {len(encodings)} texts; "
            f"the largest shift of a probability is {np.abs(found - reference).max():.2g}",
        )
        for name, (found, words) in company.items()
    ]
