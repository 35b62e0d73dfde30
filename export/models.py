"""The bundles a worker serves, each the newest version that loads; a version lives while a request holds it.

A new version is loaded and tried beside the old one, and takes its place between two requests. One that does not
load is refused with its reason, and the old one stays. Knows nothing of HTTP.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from export.bundle import BundleManifest, verify_bundle
from export.cost import CostModel, fit_cost
from export.errors import BundleError, ExportError
from export.runtime import Predictor
from export.tokens import Encoded

logger = logging.getLogger("potstill.serve")
_Signature = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True, weakref_slot=True)
class ServedModel:
    """One loaded version of a bundle under the name it is served by."""

    name: str
    predictor: Predictor
    cost: CostModel

    @property
    def manifest(self) -> BundleManifest:
        """What the bundle says of itself."""
        return self.predictor.manifest

    @property
    def digest(self) -> str:
        """Which version this is."""
        return self.predictor.manifest.digest


@dataclass(slots=True)
class Slot:
    """A name, the folder behind it, the version that answers and, if the newest was refused, why."""

    name: str
    folder: Path
    model: ServedModel
    signature: _Signature
    refused: str | None = None


Report = Callable[[str, str], None]  # (name, outcome): "loaded" or "refused"


class Models:
    """Several bundles by name; the first one is the default."""

    def __init__(self, folders: Mapping[str, Path], report: Report) -> None:
        """Load every bundle; raise BundleError when one of them cannot be used."""
        self._report = report
        self.slots = {
            name: Slot(name, folder, load_model(name, folder), _sign(folder)) for name, folder in folders.items()
        }
        self._default = next(iter(self.slots))

    def get(self, name: str | None = None) -> ServedModel | None:
        """Return the version that answers for `name` now (None: the default), None when there is no such name."""
        slot = self.slots.get(self._default if name is None else name)
        return slot.model if slot else None

    async def refresh(self) -> None:
        """Load what changed on disk since the last look; never raises."""
        for slot in self.slots.values():
            signature = await asyncio.to_thread(_sign, slot.folder)
            if signature and signature != slot.signature:
                await self._replace(slot, signature)

    async def watch(self, seconds: float) -> None:
        """Look for new versions for ever."""
        while True:
            await asyncio.sleep(seconds)
            await self.refresh()

    async def _replace(self, slot: Slot, signature: _Signature) -> None:
        slot.signature = signature
        try:
            model = await asyncio.to_thread(load_model, slot.name, slot.folder)
        except (ExportError, OSError) as error:
            slot.refused = str(error)
            logger.error("%s: a new version is refused, the old one stays: %s", slot.name, error)
            self._report(slot.name, "refused")
            return
        slot.refused = None
        if model.digest != slot.model.digest:
            logger.info("%s: version %.12s takes over from %.12s", slot.name, model.digest, slot.model.digest)
            slot.model = model
            self._report(slot.name, "loaded")


def load_model(name: str, folder: Path) -> ServedModel:
    """Verify and open a bundle, let it answer once and time it; raise BundleError when it cannot be used."""
    if problems := verify_bundle(folder):
        raise BundleError(f"{folder}: {'; '.join(problems)}")
    predictor = Predictor.load(folder)
    sample = predictor.encode(["a text " * predictor.manifest.max_tokens], too_long="truncate")[0]
    predictor.decide([sample], predictor.run([sample]).probs)

    def run(rows: int, tokens: int) -> object:
        return predictor.run([Encoded(sample.ids[:tokens].tobytes(), is_cut=True)] * rows)

    return ServedModel(name, predictor, fit_cost(run, len(sample)))


def _sign(folder: Path) -> _Signature:
    """Return what changes when a file of the folder does; empty while the folder is not there."""
    try:
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        return tuple((str(path), path.stat().st_ino, path.stat().st_mtime_ns, path.stat().st_size) for path in found)
    except OSError:  # a file went away while we looked; the next look will see what is there then
        return ()
