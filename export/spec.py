"""How a student is exported and measured, as a config names it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class AbstainSpec(BaseModel):
    """The promise about what the student answers alone; below its threshold a server abstains or asks a teacher."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    accuracy: float = Field(0.97, gt=0, lt=1, description="of what is answered alone; multi_label: of whole label sets")
    level: float = Field(0.95, ge=0.5, lt=1, description="how sure the promise is, over draws of dev")


class ScopeSpec(BaseModel):
    """Below a threshold on its familiarity a text is taken to be about something else than the labels."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    keep: float = Field(0.99, gt=0, lt=1, description="of the dev texts that are answered rightly; single_label only")


class ExportSpec(BaseModel):
    """Gates compare the int8 file with the fp32 student on dev, and on pool texts where no label is needed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    precision: Literal["int8", "fp32"] = "int8"
    plan: Literal["preset", "measured"] = Field(
        "preset", description="measured: build every int8 variant and keep the fastest on this machine that passes"
    )
    max_drop: float = Field(0.002, ge=0, le=1, description="quality on dev that int8 may lose, beyond noise")
    max_kl: float = Field(0.02, ge=0, description="mean KL(fp32 student || int8) in nats")
    max_class_drop: float = Field(0.1, ge=0, le=1, description="recall that the worst class may lose")
    max_calibration_rise: float = Field(0.02, ge=0, le=1, description="rise of the calibration error")
    too_long: Literal["truncate", "refuse"] = "truncate"
    examples: int | None = Field(None, ge=1, le=10_000, description="gold texts that the bundle carries; null: none")
    abstain: AbstainSpec = Field(default_factory=AbstainSpec)
    scope: ScopeSpec = Field(default_factory=ScopeSpec)


class BenchSpec(BaseModel):
    """`quick` interleaves single-text answers in one process; `texts` are drawn from the test part."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mode: Literal["quick"] = "quick"
    texts: int = Field(700, ge=100, le=100_000)
    repeats: int = Field(3, ge=1, le=100)
    threads: int = Field(1, ge=1, le=256)
