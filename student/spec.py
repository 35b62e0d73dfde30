"""The shape of a student, as a config names it."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

StudentKind = Literal["transformer", "static"]
LayerIndex = Annotated[int, Field(ge=0, lt=1024)]
# The smallest two BERT miniatures of Turc et al. 2019, "Well-Read Students Learn Better", with heads of 32.
SIZES: Mapping[str, Mapping[str, int]] = {
    "tiny": {"layers": 2, "width": 128, "heads": 4, "intermediate": 512},
    "mini": {"layers": 4, "width": 256, "heads": 8, "intermediate": 1024},
}
_OF_OTHERS: Mapping[StudentKind, tuple[str, ...]] = {
    "transformer": ("ngram_rows", "ngram_width"),
    "static": ("size", "layers", "heads"),
}


class StudentSpec(BaseModel):
    """`init`: `teacher`, `config` (random weights), or any checkpoint that weights are copied or projected from.

    A `transformer` copies layers: `layers` is a number (the last layer of each of so many equal blocks) or the list
    of layers. `width`, `heads` and `intermediate` (the feed-forward layers) make it narrower than the checkpoint,
    null as it is; `size` names all four, and keys beside it win. A `static` student has no layers: token embeddings of
    `width`, `ngram_rows` hashed n-gram embeddings of `ngram_width`, a hidden layer of `intermediate`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: StudentKind = "transformer"
    init: str = "teacher"
    size: Literal["tiny", "mini"] | None = Field(None, description="tiny: 2 layers x 128; mini: 4 x 256")
    layers: Annotated[int, Field(ge=1, le=64)] | Annotated[list[LayerIndex], Field(min_length=1, max_length=64)] = (
        Field(3, description="how many, or which")
    )
    width: int | None = Field(None, ge=8, le=4096)
    heads: int | None = Field(None, ge=1, le=64)
    intermediate: int | None = Field(None, ge=8, le=16384)
    ngram_rows: int | None = Field(None, ge=1, le=2**22)
    ngram_width: int | None = Field(None, ge=1, le=4096)
    vocabulary: Literal["shared", "trimmed", "full"] = Field(
        "shared",
        description="shared: all tokens, those the corpus lacks with 16 bytes of the teacher's embedding, in a static "
        "student with that of their nearest neighbour (trimmed with random weights, and of over 65,536 tokens); "
        "trimmed: the corpus's alone",
    )
    max_tokens: int | None = Field(
        None,
        ge=4,
        le=8192,
        description="null: what 99.9 % of the corpus needs, at most what the encoder takes",
    )

    @model_validator(mode="before")
    @classmethod
    def _name_sizes(cls, given: Any) -> Any:
        """Write out what `size` stands for, so that a resolved config says it; a key that is there wins."""
        size = SIZES.get(str(given.get("size"))) if isinstance(given, dict) else None
        if size is None:
            return given
        return given | {key: value for key, value in size.items() if given.get(key) is None}

    @model_validator(mode="after")
    def _refuse_keys_of_others(self) -> "StudentSpec":
        fields = type(self).model_fields
        strangers = [key for key in _OF_OTHERS[self.kind] if getattr(self, key) != fields[key].default]
        if strangers:
            raise ValueError(f"found {', '.join(strangers)}, but kind {self.kind} has no such thing: remove it")
        return self
