"""How a student is trained and tuned, as a config names it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TrainSpec(BaseModel):
    """Distillation on the soft labels of the whole pool.

    `loss`: `mse` on centred logits, `kl` with temperature, `cross_entropy` against the soft labels;
    for multi-label tasks `bce` is the same choice made per label and is what null becomes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: float | None = Field(None, gt=0, le=1000, description="null: chosen from the number of rows")
    loss: Literal["mse", "kl", "cross_entropy", "bce"] | None = Field(None, description="null: by task kind")
    temperature: float = Field(3.0, gt=0, le=100)
    learning_rate: float = Field(5e-4, gt=0, lt=1)
    head_learning_rate: float = Field(5e-4, gt=0, lt=1)
    batch_size: int = Field(32, ge=1, le=4096)
    weight_decay: float = Field(0.01, ge=0, lt=1)
    warmup: float = Field(0.06, ge=0, lt=1, description="share of all steps")
    gold_weight: float = Field(0.0, ge=0, le=1, description="share of the loss taken by gold labels")
    hidden_weight: float | None = Field(
        None, ge=0, description="weight of the teacher's sentence embeddings; null: 10 where the teacher has an encoder"
    )
    patience: int | None = Field(None, ge=1, description="evaluations on dev without gain before stopping")
    bf16: bool | None = Field(None, description="null: where the CPU multiplies bfloat16 natively")
    report_to: list[str] = Field(default_factory=list, description="passed through to transformers.Trainer")


class TuneSpec(BaseModel):
    """A last pass over the gold labels; dev decides whether it is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: float = Field(3.0, gt=0, le=1000)
    learning_rate: float = Field(2e-5, gt=0, lt=1)
    batch_size: int = Field(32, ge=1, le=4096)
    soft_weight: float = Field(0.5, ge=0, le=1, description="share of the loss kept on the soft labels")
