"""How a student is trained and tuned, and which ones a search tries, as a config names it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from student.spec import StudentKind, StudentSpec

# What null stands for; a transformer's batches depend on its schedule. A static student is far cheaper to show a text
# to, and its tables need larger steps.
_BY_KIND: Mapping[StudentKind, Mapping[str, Any]] = {
    "transformer": {"learning_rate": 5e-4, "head_learning_rate": 5e-4, "hidden_weight": 10.0, "hint_weight": 40.0},
    "static": {
        "learning_rate": 4e-2,
        "head_learning_rate": 5e-3,
        "batch_size": 256,
        "hidden_weight": 0.0,
        "hint_weight": 0.0,
        "bf16": False,
    },
}


class TrainSpec(BaseModel):
    """Distillation on the soft labels of the whole pool.

    `loss`: `mse` on centred logits, `kl` with temperature, `cross_entropy` against the soft labels;
    for multi-label tasks `bce` is the same choice made per label and is what null becomes. Learning rates and
    the batch size, where null, are those that suit the kind of student.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: float | None = Field(None, gt=0, le=1000, description="null: chosen from the number of rows")
    loss: Literal["mse", "kl", "cross_entropy", "bce"] | None = Field(None, description="null: by task kind")
    temperature: float = Field(3.0, gt=0, le=100)
    learning_rate: float | None = Field(None, gt=0, lt=1, description="null: 5e-4, static 4e-2")
    head_learning_rate: float | None = Field(None, gt=0, lt=1, description="null: 5e-4, static 5e-3")
    batch_size: int | None = Field(None, ge=1, le=4096, description="null: 64 or 32, see `recipe_of`; static 256")
    weight_decay: float = Field(0.01, ge=0, lt=1)
    warmup: float = Field(0.06, ge=0, lt=1, description="share of all steps")
    gold_weight: float = Field(0.0, ge=0, le=1, description="share of the loss taken by gold labels")
    hidden_weight: float | None = Field(
        None,
        ge=0,
        description="weight of the teacher's sentence embeddings; null: 10 where it has an encoder, static 0",
    )
    hint_weight: float | None = Field(
        None,
        ge=0,
        description="weight of the teacher's hidden states in layers that the student copied; null: 40, static 0",
    )
    patience: int | None = Field(None, ge=1, description="evaluations on dev without gain before stopping")
    bf16: bool | None = Field(None, description="null: where the CPU multiplies bfloat16 natively")
    background: list[str] = Field(
        default_factory=list,
        description="files under data.root with texts about something else, where the student is to be sure of nothing",
    )
    seed: int | None = Field(None, ge=0, lt=2**31, description="of the student alone; null: the seed of the run")
    report_to: list[str] = Field(default_factory=list, description="passed through to transformers.Trainer")

    def settled(self, kind: StudentKind) -> "TrainSpec":
        """Return this section with what null stands for, for a student of `kind`."""
        missing = {name: value for name, value in _BY_KIND[kind].items() if getattr(self, name) is None}
        return self.model_copy(update=missing)

    def set_for_one_kind(self) -> list[str]:
        """Return the names of what is set here and suits students of one kind only."""
        return [name for name in ("epochs", *_BY_KIND["static"]) if getattr(self, name) is not None]


class TuneSpec(BaseModel):
    """A last pass over the gold labels; dev decides whether it is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: float = Field(3.0, gt=0, le=1000)
    learning_rate: float = Field(2e-5, gt=0, lt=1)
    batch_size: int = Field(32, ge=1, le=4096)
    soft_weight: float = Field(0.5, ge=0, le=1, description="share of the loss kept on the soft labels")


class SearchSpec(BaseModel):
    """Which students `distill search` tries, and after which shares of their training it drops the least promising.

    `ladder` lists students as `student` sections; `init`, `vocabulary` and `max_tokens` are those of `student` where
    an entry does not say. After each of `rungs` but the last, one student in `eta` goes on, two at least.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    ladder: Annotated[list[StudentSpec], Field(min_length=1, max_length=64)] | None = Field(
        None, description="null: static, 1, 2, 3, 4 and 6 layers, and two narrower ones, as far as the teacher has them"
    )
    rungs: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        default_factory=lambda: [0.25, 0.5, 1.0], min_length=1, max_length=16, description="shares of the training"
    )
    eta: int = Field(2, ge=2, le=16, description="one student in so many goes on")

    @model_validator(mode="after")
    def _end_with_all(self) -> "SearchSpec":
        if self.rungs != sorted(set(self.rungs)) or self.rungs[-1] != 1:
            raise ValueError(f"rungs {self.rungs}: wanted rising shares that end with 1.0")
        return self


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a training that a search asks for: up to `share` of its schedule, on from the folder `earlier`.

    `shared` is a folder for what all students of one search would compute alike.
    """

    share: float = 1.0
    earlier: Path | None = None
    shared: Path | None = None
