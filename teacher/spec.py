"""The parts of a config that the teacher side reads: the task, the data and the teacher itself.

Specs are frozen values; importing this module loads nothing heavier than pydantic.
"""

from collections.abc import Callable, Iterator
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from teacher.task import TaskKind

KeyPath = tuple[str | int, ...]


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


class ModelSpec(Spec):
    """Base of what names models and files; the names are relative to the config file until a run resolves them."""

    models: ClassVar[tuple[str, ...]] = ()  # fields that name a Hugging Face model to open here, or null
    files: ClassVar[tuple[str, ...]] = ()  # fields that name a file or folder whose content shapes the answers, or null
    data_files: ClassVar[tuple[str, ...]] = ()  # the same, relative to data.root
    keeps_answers: ClassVar[bool] = False  # they cost money or much time, so a run keeps every one

    def parts(self, path: KeyPath = ()) -> Iterator[tuple[KeyPath, "ModelSpec"]]:
        """Yield this and every spec inside it, each with its place in the config."""
        yield path, self
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, ModelSpec):
                yield from value.parts((*path, name))
            elif isinstance(value, list):
                for index, one in enumerate(value):
                    if isinstance(one, ModelSpec):
                        yield from one.parts((*path, name, index))

    def resolved(self, resolve: Callable[[str, str], str]) -> Self:
        """Return a copy in which `resolve(role, name)` replaces every name; roles: models, files, data_files."""
        update: dict[str, object] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, ModelSpec):
                update[name] = value.resolved(resolve)
            elif isinstance(value, list):
                update[name] = [one.resolved(resolve) if isinstance(one, ModelSpec) else one for one in value]
        for role in ("models", "files", "data_files"):
            for name in getattr(self, role):
                if (value := getattr(self, name)) is not None:
                    update[name] = resolve(role, value)
        return self.model_copy(update=update)


class FineTuneSpec(ModelSpec):
    """How an encoder is fine-tuned into a classifier."""

    models: ClassVar = ("model",)

    model: str
    epochs: float | None = Field(None, gt=0, le=1000, description="null: chosen from the number of rows")
    learning_rate: float = Field(2e-4, gt=0, lt=1)
    head_learning_rate: float = Field(2e-3, gt=0, lt=1)
    batch_size: int = Field(32, ge=1, le=4096)
    max_tokens: int = Field(128, ge=4, le=8192)
    seed: int | None = Field(None, ge=0, lt=2**31, description="null: the seed of the run")
    soup: int | None = Field(
        None, ge=1, le=16, description="fine-tuned so often, then averaged; null: 2, above 20,000 rows 1"
    )


class EncoderSpec(FineTuneSpec):
    """Fine-tune a Hugging Face encoder on gold, or load one that already is fine-tuned (`trained: true`)."""

    kind: Literal["encoder"] = "encoder"
    trained: bool = False
    label_names: bool = Field(False, description="learn from each label's description, or name, as from a gold text")


class SelfTrainingSpec(FineTuneSpec):
    """Fine-tune an encoder on gold and on the pool as another teacher answers it; then again, as it answers itself."""

    kind: Literal["self_training"] = "self_training"
    teacher: "TeacherSpec"
    soup: int | None = Field(1, ge=1, le=16, description="of each round, whose answers are averaged anyway")
    rounds: int = Field(2, ge=1, le=20)
    pool_rows: int = Field(20_000, ge=1, le=1_000_000, description="of a larger pool so many are drawn")
    neighbours: int | None = Field(10, ge=1, le=1000, description="texts that each answer spreads to; null: none")
    refit: bool = Field(False, description="once dev has judged and calibrated, begin again with dev among the gold")

    @model_validator(mode="after")
    def _refits_an_encoder(self) -> Self:
        if self.refit and self.teacher.kind != "encoder":
            raise ValueError(f"found a teacher of kind {self.teacher.kind}, wanted an encoder, which refit fits twice")
        return self


class PrototypesSpec(ModelSpec):
    """Frozen embeddings and a calibrated linear head, for a handful of gold."""

    models: ClassVar = ("model",)

    kind: Literal["prototypes"] = "prototypes"
    model: str
    max_tokens: int = Field(128, ge=4, le=8192)


class PromptSpec(ModelSpec):
    """What an LLM is asked: a template file, examples from gold, and passages from a folder of documents."""

    models: ClassVar = ("encoder",)
    files: ClassVar = ("template", "documents")

    template: str | None = Field(None, description="a prompt file; null: the one that Potstill carries")
    examples: int = Field(0, ge=0, le=256, description="few-shot examples taken from gold for each text")
    choose: Literal["fixed", "random", "dense", "bm25"] = Field("fixed", description="how they are found")
    documents: str | None = Field(None, description="a folder of .txt and .md files to retrieve passages from")
    passages: int = Field(0, ge=0, le=64, description="passages retrieved for each text")
    encoder: str | None = Field(None, description="the encoder of `dense`, and of passages; null: passages use bm25")


class LlmApiSpec(ModelSpec):
    """Ask an OpenAI-compatible endpoint. The key is read from the environment variable `key_env` and never stored."""

    files: ClassVar = ("prices",)
    keeps_answers: ClassVar = True

    kind: Literal["llm_api"] = "llm_api"
    base_url: str
    model: str = Field(description="the name the endpoint knows")
    endpoint: str | None = Field(
        None, description="under whose name answers are kept; null: base_url. Set it before the same server moves"
    )
    key_env: str | None = Field("OPENAI_API_KEY", description="null: the endpoint wants no key")
    prompt: PromptSpec = Field(default_factory=PromptSpec)
    answers: Literal["logprobs", "votes", "candidates"] | None = Field(
        None,
        description="how answers become a distribution; null: logprobs where the endpoint gives them, else votes; "
        "multi-label tasks: votes, for logprobs take one call a label",
    )
    samples: int = Field(5, ge=1, le=100, description="answers a text for votes")
    candidates: int = Field(3, ge=2, le=26, description="labels that one answer may name, for candidates")
    sampling_temperature: float = Field(0.7, ge=0, le=2, description="of votes; the other ways use 0")
    top_logprobs: int = Field(20, ge=1, le=20)
    max_tokens: int = Field(8192, ge=64, le=2_000_000, description="context that the model takes")
    transport: Literal["direct", "batch"] = Field("direct", description="batch: the provider's batch API")
    concurrency: int = Field(16, ge=1, le=1024)
    timeout_seconds: float = Field(60.0, gt=0, le=3600)
    attempts: int = Field(6, ge=1, le=100, description="tries of one call before its row is rejected")
    prices: str | None = Field(None, description="a YAML table of prices; null: the one that Potstill carries")


class LlmLocalSpec(ModelSpec):
    """Score every label with a Hugging Face causal LM on this machine."""

    models: ClassVar = ("model",)
    keeps_answers: ClassVar = True

    kind: Literal["llm_local"] = "llm_local"
    model: str
    prompt: PromptSpec = Field(default_factory=PromptSpec)
    prior: Literal["none", "contextual", "batch"] = Field("batch", description="how the label prior is taken out")
    orders: int = Field(1, ge=1, le=64, description="permutations of the label list that are averaged")
    batch_size: int = Field(8, ge=1, le=1024)
    max_tokens: int = Field(2048, ge=64, le=1_000_000)


class NliSpec(ModelSpec):
    """Zero-shot entailment: does the text entail `template` with the label in it?"""

    models: ClassVar = ("model",)
    keeps_answers: ClassVar = True

    kind: Literal["nli"] = "nli"
    model: str
    templates: list[str] = Field(default=["This text is about {}."], min_length=1, max_length=16)
    max_tokens: int = Field(256, ge=16, le=8192)


class RecordedSpec(ModelSpec):
    """Answers somebody recorded, in a csv, tsv, jsonl or parquet file, by text or content id."""

    data_files: ClassVar = ("answers",)

    kind: Literal["recorded"] = "recorded"
    answers: str
    text: str = Field("text", description="column of the text, as the corpus has it")
    id: str | None = Field(None, description="column of the content id, instead of the text")
    label: str = Field("label", description="column of the answered label")
    separator: str = Field("|", min_length=1, description="between the labels of one multi-label answer")
    distribution: str | None = Field(
        None, description="column of a JSON object of label to probability, instead of the label"
    )
    model: str | None = Field(None, description="column of the model's name; each model of a text has one vote")
    only_model: str | None = Field(None, description="take the rows of this model alone")
    match: Literal["exact", "normalised"] = Field(
        "exact",
        description="normalised: of labels and texts only letters and digits count, in any case; every match is logged",
    )
    trust: float | None = Field(
        None, gt=0, lt=1, description="probability of a hard answer; null: how often it is right on gold"
    )


class RulesSpec(ModelSpec):
    """Labelling functions in a Python file of yours, combined by a generative label model."""

    files: ClassVar = ("file",)

    kind: Literal["rules"] = "rules"
    file: str
    least_votes: int = Field(1, ge=1, le=100, description="texts with fewer votes are rejected")


class CommitteeSpec(ModelSpec):
    """A weighted mean of other teachers; the weights are learned per class on dev."""

    kind: Literal["committee"] = "committee"
    members: list["TeacherSpec"] = Field(min_length=2, max_length=16)


TeacherSpec = Annotated[
    EncoderSpec
    | SelfTrainingSpec
    | PrototypesSpec
    | LlmApiSpec
    | LlmLocalSpec
    | NliSpec
    | RecordedSpec
    | RulesSpec
    | CommitteeSpec,
    Field(discriminator="kind"),
]
SelfTrainingSpec.model_rebuild()
CommitteeSpec.model_rebuild()


class SelectSpec(ModelSpec):
    """Which texts of the pool are worth a teacher call; a smaller budget takes the first of them."""

    models: ClassVar = ("encoder",)

    strategy: Literal["random", "uncertainty", "diversity", "both"] = "both"
    budget_rows: int = Field(ge=1, description="pool texts that the teacher is asked; gold rows are never among them")
    uncertainty: Literal["margin", "entropy"] = Field("margin", description="of a linear model fitted on gold")
    encoder: str | None = Field(None, description="the encoder whose embeddings decide; null: TF-IDF, projected")
    candidates: int = Field(
        100_000,
        ge=1,
        le=1_000_000,
        description="a larger pool is thinned to so many at random before the texts are compared; random has no limit",
    )


class LabelSpec(ModelSpec):
    """How the teacher's answers are stored, which texts it is asked, and what happens when it is weak."""

    select: SelectSpec | None = Field(None, description="null: the whole pool is labelled")
    variants: int | None = Field(
        None,
        ge=0,
        le=64,
        description="variants of each pool text that the teacher labels beside it; null: 10, fewer in a pool of more "
        "than 15,000 texts, 0 above 40,000 and where the teacher does not consist of encoders",
    )
    shard_rows: int = Field(20_000, ge=1, le=1_000_000, description="rows that one shard file holds")
    weak_teacher: Literal["stop", "warn"] = Field(
        "stop", description="when the teacher is no better on dev than TF-IDF with a linear model on gold"
    )
