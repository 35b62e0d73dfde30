"""What was paid for the texts of a run under another endpoint, model or prompt, said before it is paid anew.

Looks at the run's own file of answers and asks nothing.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from distill.conductor import Conductor
from distill.scores import dev_score
from teacher.asked_book import Origin, paid_texts
from teacher.corpus import iterate_part, read_meta, read_part
from teacher.encoder import Gold
from teacher.llm_api import origins
from teacher.paid import PaidAnswers
from teacher.parts import PartName
from teacher.spec import LlmApiSpec

_SPOKEN = ("endpoint", "model")  # the others are digests
Paid = dict[str, dict[Origin, float]]


def paid_before(conductor: Conductor, paid: PaidAnswers) -> Iterator[str]:
    """Yield a line for each paid teacher of the config that will be asked what others were paid for before.

    Reads the prepared corpus. Raises TeacherError for a prompt that cannot work.
    """
    known = paid_texts(paid)
    for path, spec in conductor.teacher.parts(("teacher",)):
        if known and isinstance(spec, LlmApiSpec):
            wanted = _origins(spec, conductor)
            place = ".".join(map(str, path))
            yield from _line(f"{place} ({spec.model})", conductor, known, wanted)


def rows_to_ask(conductor: Conductor) -> dict[PartName, int]:
    """Return how many texts of each part a run asks its teacher about, variants aside."""
    rows, select = read_meta(conductor.path("corpus")).rows, conductor.config.label.select
    pool = rows["pool"] if select is None else min(select.budget_rows, rows["pool"])
    return {"dev": rows["dev"], "test": rows["test"], "pool": pool}


def _origins(spec: LlmApiSpec, conductor: Conductor) -> Sequence[Origin]:
    corpus, task = conductor.path("corpus"), conductor.task
    gold = Gold(task, read_part(corpus, "gold"), [], dev_score(task.kind), conductor.config.seed)
    with tempfile.TemporaryDirectory() as folder:
        return origins(spec, gold, Path(folder))


def _line(place: str, conductor: Conductor, known: Paid, wanted: Sequence[Origin]) -> Iterator[str]:
    """Yield what is to be said, nothing where no text would be paid again."""
    rows, lost = 0, dict[str, dict[Origin, float]]()
    for part, most in rows_to_ask(conductor).items():
        ids = (one.id for chunk in iterate_part(conductor.path("corpus"), part) for one in chunk)
        again = [id for id in ids if id in known and not set(known[id]) & set(wanted)][:most]
        lost |= {id: known[id] for id in again}
        rows += most
    if not lost:
        return
    usd = sum(sum(prices.values()) for prices in lost.values())
    common = Counter(origin for prices in lost.values() for origin in prices).most_common(1)[0][0]
    differing = min((common.differences(each) for each in wanted), key=len)
    told = " and ".join(f"{name} {getattr(common, name)}" if name in _SPOKEN else name for name in differing)
    advice = f"; if that is the same model, teacher.endpoint={common.endpoint} finds them"
    yield (
        f"{place}: {len(lost):,} of the {rows:,} texts of this run have answers, which cost ${usd:,.4f}, under another "
        f"{told}; they are asked and paid anew{advice if differing == ['endpoint'] else ''}"
    )
