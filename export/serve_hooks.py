"""Where other parts join the way of a request: after the student's answer, and before the response is written.

Knows nothing of what a hook does; without hooks a request pays nothing for them.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from export.models import ServedModel
from export.runtime import Prediction
from export.serve_settings import ServeSettings

Source = Literal["student", "teacher", "abstain", "fallback"]


ABSTAIN = "abstain"  # what stands in the place of a label where a protocol knows nothing but labels


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one text and who gave it; `logits` are the student's, and so is `certainty` where it was judged.

    `is_strange`: the text seemed to the student to be about something else, and doubt was to look at that.

    A fallback is the student's answer to a text that its teacher did not answer.
    """

    text: str
    prediction: Prediction
    logits: NDArray[np.float32] = field(compare=False)  # (labels,)
    source: Source = "student"
    certainty: float | None = None
    is_strange: bool = False


# Returns the answers that go out, in order; `deadline` is on time.perf_counter, None without one. It must not raise
# anything but RequestError: when a teacher fails, the student's answer is the answer.
Decide = Callable[[ServedModel, Sequence[Answer], float | None], Awaitable[Sequence[Answer]]]
# Is told every answer that goes out, on the event loop: it may queue, never wait.
Capture = Callable[[ServedModel, Sequence[Answer]], None]


@dataclass(slots=True)
class Hooks:
    """What takes part in a request, and what is awaited when the server stops."""

    decide: Decide | None = None
    capture: Capture | None = None
    closing: list[Callable[[], Awaitable[None]]] = field(default_factory=list)


def make_hooks(settings: ServeSettings) -> Hooks:
    """Return the hooks that the settings ask for; called once in each worker, on its event loop.

    Raises ExportError when what they name cannot be used.
    """
    if settings.doubt is None:
        return Hooks()
    from export.doubt import Doubt  # it knows the hooks, and most servers do without it
    from export.doubt_settings import read_doubt

    doubt = Doubt(read_doubt(settings.doubt), settings.workers or 1)
    return Hooks(decide=doubt.decide, capture=doubt.capture, closing=[doubt.close])
