"""What a call costs: a YAML table of prices per model, and the arithmetic. Knows nothing of calls or budgets."""

from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from teacher.errors import PriceError

CARRIED_TABLE = Path(__file__).with_name("prices.yaml")
_MILLION = 1_000_000
_OLD_DAYS = 183  # providers change their prices about that often


class ModelPrice(BaseModel):
    """USD for a million tokens, and the share that the batch API takes off; 0 is a price that somebody wrote down.

    `as_of` is the day on which `source` said so.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)
    batch_discount: float = Field(0.0, ge=0, le=1)
    as_of: date | None = None
    source: str | None = None

    @property
    def is_free(self) -> bool:
        """Say whether calls cost nothing."""
        return not (self.prompt or self.completion)


class PriceTable(BaseModel):
    """prices.yaml: a price for each model name or shell pattern of names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: dict[str, ModelPrice]


@dataclass(frozen=True, slots=True)
class Price:
    """USD for one token of the prompt and for one that is generated."""

    prompt_usd: float
    completion_usd: float
    doubt: str | None = None  # why it may not be what the provider takes today

    def cost_usd(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Return what a call with so many tokens costs."""
        return prompt_tokens * self.prompt_usd + completion_tokens * self.completion_usd


def find_price(model: str, path: Path | None = None, *, is_batch: bool = False) -> Price:
    """Return the price of `model` in the table at `path` (None: the one that Potstill carries).

    The name itself beats a pattern, a longer pattern a shorter one. Raises PriceError when the table cannot be read
    or has no price for the model, also for one that is free.
    """
    table = _read(path or CARRIED_TABLE).models
    matching = [name for name in table if fnmatchcase(model, name)]
    if not matching:
        raise PriceError(
            f"{path or 'the table of prices that Potstill carries'}: found no price for {model!r}, wanted one; write "
            f"`models: {{{model!r}: {{prompt: 0.15, completion: 0.60, as_of: {date.today()}}}}}` (USD per million "
            "tokens, 0 where it is free) into a YAML file and name that in teacher.prices"
        )
    found = table[max(matching, key=lambda name: (name == model, len(name)))]
    factor = (1 - found.batch_discount if is_batch else 1.0) / _MILLION
    return Price(found.prompt * factor, found.completion * factor, _doubt(model, found, date.today()))


def _doubt(model: str, price: ModelPrice, today: date) -> str | None:
    told = f"the price of {model} ({price.prompt:g} and {price.completion:g} USD per million tokens)"
    advice = "compare it with your provider's, and write yours into the table of teacher.prices"
    if price.is_free or (price.as_of and (today - price.as_of).days <= _OLD_DAYS):
        return None
    if price.as_of is None:
        return f"{told} carries no date (as_of); {advice}"
    return f"{told} is of {price.as_of}, from {price.source or 'an unnamed source'}: older than half a year; {advice}"


def _read(path: Path) -> PriceTable:
    try:
        return PriceTable.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise PriceError(f"{path}: cannot be read ({error.strerror}); wanted a YAML table of prices") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PriceError(f"{path}: is no YAML ({' '.join(str(error).split())}); wanted a table of prices") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole file"
        raise PriceError(
            f"{path}: found {place} wrong ({first['msg']}); wanted `models: {{NAME: {{prompt: USD, completion: USD}}}}`"
        ) from None
