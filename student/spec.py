"""The shape of a student, as a config names it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

LayerIndex = Annotated[int, Field(ge=0, lt=1024)]


class StudentSpec(BaseModel):
    """`init`: `teacher`, `config` (random weights), or any checkpoint; layers are copied from it.

    `layers` is a number (spread evenly from first to last) or the list of layers to copy.
    `width` and `heads` only count with `init: config`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    init: str = "teacher"
    layers: Annotated[int, Field(ge=1, le=64)] | Annotated[list[LayerIndex], Field(min_length=1, max_length=64)] = (
        Field(3, description="how many, or which")
    )
    width: int | None = Field(None, ge=8, le=4096)
    heads: int | None = Field(None, ge=1, le=64)
    vocabulary: Literal["trimmed", "full"] = "trimmed"
    max_tokens: int | None = Field(
        None,
        ge=4,
        le=8192,
        description="null: what 99.9 % of the corpus needs, at most what the encoder takes",
    )
