"""What a server does with doubtful texts, as an operator writes it: a YAML file beside the bundle.

Checks the words; knows nothing of requests.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from export.errors import ExportError

Redact = Callable[[str], str | None]


class TeacherSettings(BaseModel):
    """Who is asked about a doubtful text, and what that may take; a call over a limit is not made.

    `protocol` predict: `url` is the /predict of another Potstill or text-embeddings-inference server. openai: `url` is
    the base of an OpenAI-compatible endpoint and `model` a chat model there. The budgets count from the start of the
    server; each of several workers has its share. The key stands in the environment, under the name `key_env`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    protocol: Literal["predict", "openai"] = "predict"
    url: str = Field(pattern=r"^https?://[^\s]+$")
    model: str | None = None
    key_env: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    instruction: str | None = Field(None, description="openai: what to say before the labels")
    timeout_ms: float = Field(2000.0, gt=0)
    concurrency: int = Field(4, ge=1, le=256, description="calls under way in one worker")
    budget_calls: int | None = Field(None, ge=0)
    budget_usd: float | None = Field(None, ge=0)
    usd_per_call: float | None = Field(None, ge=0, description="the most that one call costs")

    @model_validator(mode="after")
    def _fit_together(self) -> "TeacherSettings":
        if self.protocol == "openai" and self.model is None:
            raise ValueError("protocol openai wants a model")
        if self.budget_usd is not None and self.usd_per_call is None:
            raise ValueError("budget_usd wants usd_per_call, or nothing could be counted")
        return self

    def most_calls(self, workers: int) -> int | None:
        """Return how many calls one of so many workers may make, None for any number."""
        limits = [] if self.budget_calls is None else [self.budget_calls]
        if self.budget_usd is not None and self.usd_per_call:
            limits.append(int(self.budget_usd / self.usd_per_call + 1e-9))
        return min(limits) // workers if limits else None


class CaptureSettings(BaseModel):
    """Which doubtful texts are kept for the next training: `share` of them, until `folder` holds `max_bytes`.

    `redact` is `module:function`, called with each text before it is written; it returns what may be kept, or None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    folder: Path
    share: float = Field(1.0, gt=0, le=1)
    max_bytes: int = Field(100_000_000, ge=1000)
    redact: str | None = Field(None, pattern=r"^[\w.]+:\w+$")

    def load_redact(self) -> Redact | None:
        """Return the function that `redact` names; raise ExportError when there is none."""
        if self.redact is None:
            return None
        module, _, name = self.redact.partition(":")
        try:
            found: Any = getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ExportError(f"capture.redact: {self.redact} cannot be loaded ({error}); check the path") from error
        if not callable(found):
            raise ExportError(f"capture.redact: {self.redact} is no function; name one that takes and returns a text")
        function: Redact = found
        return function


class DoubtSettings(BaseModel):
    """What becomes of an answer whose certainty is below the threshold (None: the one its bundle proved), or whose text
    is out of scope.

    abstain: it goes out without a label. answer: it goes out as it is (and may be captured). teacher: the teacher's
    answer goes out, or the student's, marked as a fallback, when there is none in time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    below: Literal["abstain", "answer", "teacher"] = "abstain"
    threshold: float | None = Field(None, ge=0, le=1)
    scope: bool = Field(True, description="a text that seems to be about something else is doubtful too")
    teacher: TeacherSettings | None = None
    capture: CaptureSettings | None = None

    @model_validator(mode="after")
    def _fit_together(self) -> "DoubtSettings":
        if (self.below == "teacher") != (self.teacher is not None):
            raise ValueError("below: teacher and the section teacher want each other")
        return self


def read_doubt(path: Path) -> DoubtSettings:
    """Return the settings in a YAML file, folders relative to it; raise ExportError when it cannot be used."""
    try:
        found = DoubtSettings.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'all'}: {one['msg']}" for one in error.errors())
        raise ExportError(f"{path}: {told}") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ExportError(f"{path}: cannot be read ({error}); wanted a YAML file") from error
    if found.capture is None:
        return found
    folder = path.parent / found.capture.folder
    return found.model_copy(update={"capture": found.capture.model_copy(update={"folder": folder})})
