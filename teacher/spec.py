"""The parts of a config that the teacher side reads: the task, the data and the teacher itself.

Specs are frozen values; importing this module loads nothing heavier than pydantic.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from teacher.task import TaskKind


class Spec(BaseModel):
    """Base of every spec: frozen, closed, validated."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class TaskSpec(Spec):
    """`labels`: null takes the labels found in gold, sorted; a list; or a mapping of name to description."""

    kind: TaskKind = TaskKind.SINGLE_LABEL
    labels: list[str] | dict[str, str] | None = None


class DataSpec(Spec):
    """Where the texts are. Files are relative to `root`, and `root` to the config file.

    A source is a .csv, .tsv, .jsonl, .parquet or .txt file, or `hub:owner/name#split`.
    """

    root: str = "."
    text: str = "text"
    label: str = "label"
    separator: str = Field("|", min_length=1, description="between the labels of one multi-label cell")
    unlabeled: list[str] = Field(default_factory=list)
    gold: str
    dev: str | None = Field(None, description="null: split from gold, stratified")
    test: str | None = Field(None, description="null: split from gold, stratified")
    dev_share: float = Field(0.2, gt=0, lt=0.9)
    test_share: float = Field(0.2, gt=0, lt=0.9)
    max_characters: int = Field(20_000, ge=1, description="longer texts are quarantined")
    near_duplicates: Literal["flag", "drop"] = Field(
        "flag", description="texts of pool and gold that nearly repeat one of dev or test; exact repeats always go"
    )
    near_duplicate: float = Field(
        0.9,
        gt=0.5,
        le=1.0,
        description="share of its words a text of 8 or more must have in common with another to count "
        "as the same across splits; 1.0: only case, punctuation and spaces may differ",
    )


class EncoderSpec(Spec):
    """Fine-tune a Hugging Face encoder on gold, or load one that already is fine-tuned (`trained: true`)."""

    kind: Literal["encoder"] = "encoder"
    model: str
    trained: bool = False
    epochs: float | None = Field(None, gt=0, le=1000, description="null: chosen from the number of gold rows")
    learning_rate: float = Field(2e-4, gt=0, lt=1)
    head_learning_rate: float = Field(2e-3, gt=0, lt=1)
    batch_size: int = Field(32, ge=1, le=4096)
    max_tokens: int = Field(128, ge=4, le=8192)


class PrototypesSpec(Spec):
    """Frozen embeddings and a calibrated linear head, for a handful of gold."""

    kind: Literal["prototypes"] = "prototypes"
    model: str
    max_tokens: int = Field(128, ge=4, le=8192)


class CommitteeSpec(Spec):
    """A weighted mean of other teachers; the weights are learned per class on dev."""

    kind: Literal["committee"] = "committee"
    members: list["TeacherSpec"] = Field(min_length=2, max_length=16)


TeacherSpec = Annotated[EncoderSpec | PrototypesSpec | CommitteeSpec, Field(discriminator="kind")]
CommitteeSpec.model_rebuild()


class LabelSpec(Spec):
    """How the teacher's answers are stored, and what happens when the teacher is weak."""

    shard_rows: int = Field(20_000, ge=1, le=1_000_000, description="rows that one shard file holds")
    weak_teacher: Literal["stop", "warn"] = Field(
        "stop", description="when the teacher is no better on dev than TF-IDF with a linear model on gold"
    )
