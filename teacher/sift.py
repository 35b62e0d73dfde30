"""Walk through the rows of the sources and keep account of every one that is left out.

Knows nothing of labels beyond passing their cells on, nor of what a part is used for.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from teacher.example import normalise
from teacher.leaks import LeakIndex
from teacher.parts import LeakExample
from teacher.quarantine import Fault, Origin, Quarantine, Reason, find_text_fault
from teacher.read import Columns, read_rows
from teacher.spec import DataSpec

DUPLICATE = "duplicate"
_LEAKS_SHOWN = 3
_PROGRESS_ROWS = 4096


@dataclass
class Ledger:
    """What was left out or flagged: quarantined rows, texts by part and reason, and some of the leaks."""

    drops_near: bool = False
    quarantine: Quarantine = field(default_factory=Quarantine)
    dropped: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    flagged: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    leaks: list[LeakExample] = field(default_factory=list)

    def drop_leak(self, index: LeakIndex, part: str, text: str) -> bool:
        """Return whether `text` of `part` must go because it repeats a text of `index`; count it if it repeats.

        A near duplicate goes only with `drops_near`, else it is flagged and stays.
        """
        found = index.find(text)
        if found is None:
            return False
        reason = f"{'near duplicate of' if found.near else 'same text in'} {found.part}"
        stays = found.near and not self.drops_near
        counts = (self.flagged if stays else self.dropped)[part]
        counts[reason] += 1
        if counts[reason] <= _LEAKS_SHOWN:
            self.leaks.append(
                LeakExample(part=part, text=text, reason=reason, held_part=found.part, held_text=found.text)
            )
        return not stays


@dataclass(frozen=True)
class Sifter:
    """Reads sources under `root` as `data` describes them; unfit rows go to the ledger."""

    data: DataSpec
    root: Path
    ledger: Ledger
    progress: Callable[[int], None]

    def sift(self, part: str, source: str, label: str | None = None) -> Iterator[tuple[Origin, str, object]]:
        """Yield origin, normalised text and label cell of each fit row; raise CorpusError like read_rows."""
        unreported = 0
        for row in read_rows(source, self.root, Columns(self.data.text, label)):
            unreported += 1
            if unreported == _PROGRESS_ROWS:
                self.progress(unreported)
                unreported = 0
            origin = Origin(part, source, row.number)
            if row.fault:
                fault: Fault | None = Fault(Reason.MALFORMED, row.fault)
            else:
                fault = find_text_fault(row.text, self.data.max_characters)
            if fault:
                self.ledger.quarantine.add(origin, fault, row.text)
            else:
                yield origin, normalise(str(row.text)), row.label
        self.progress(unreported)
