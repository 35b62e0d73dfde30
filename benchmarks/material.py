"""What the rows of speed.py share: finished runs, texts, the rival's export, and how much is measured."""

from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

import rival
from lines import MeasureError

from distill.tables import read_column

TEXTS = 700
_LEAST_TEXTS = 40


@dataclass(slots=True)
class Bench:
    """Where things are, how much is measured, and what the rows share."""

    runs: Path
    datasets: Path
    share: float
    static: Path | None
    scratch: Path
    exported: dict[str, Path] = field(default_factory=dict)

    def run(self, name: str) -> Path:
        """Return a finished run's folder."""
        if not (self.runs / name / "bundle" / "potstill.json").is_file():
            raise MeasureError(f"{self.runs / name} holds no bundle; run configs/{name}.yaml there first")
        return self.runs / name

    def texts(self, name: str = "banking77", count: int = TEXTS) -> list[str]:
        """Return texts of a data set: its test part, and the other parts where more are wanted, again and again."""
        found = [text for part in ("test", "dev", "train") for text in self._column(name, part)]
        return list(islice(cycle(found), max(int(count * self.share), _LEAST_TEXTS)))

    def classifier(self) -> Path:
        """Return Optimum's int8 export of the banking77 student."""
        if "classifier" not in self.exported:
            self.exported["classifier"] = rival.export_classifier(
                self.run("banking77") / "tuned", self.scratch / "classifier"
            )
        return self.exported["classifier"]

    def count(self, full: int) -> int:
        """Return how much of `full` this call measures, at least 1."""
        return max(round(full * self.share), 1)

    def _column(self, name: str, part: str) -> list[str]:
        path = self.datasets / name / f"{part}.csv"
        return [text for text in read_column(path, "text") if isinstance(text, str) and text.strip()]
