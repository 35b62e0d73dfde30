"""Virtual environments of rivals: made on demand from pinned versions, under .cache, and used as processes.

What both sides need has the version of constraints.txt, so that only the rival's own code differs. It is linked from
our own environment: what is large takes no time and no disk twice.
"""

import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

from checkout import ROOT
from lines import MeasureError
from runs import environment

_FIND_PACKAGES = "import sysconfig; print(sysconfig.get_path('purelib'))"
_VERSIONS = (
    "import sys; from importlib.metadata import version as v; print(', '.join(f'{n} {v(n)}' for n in sys.argv[1:]))"
)


@dataclass(frozen=True, slots=True)
class Environment:
    """The environment .cache/`name` with `pins`, and with `shared` packages as constraints.txt pins them."""

    name: str
    pins: tuple[str, ...]
    shared: tuple[str, ...]

    def python(self) -> Path:
        """Return its interpreter; the environment is made when it is not there, or has other pins."""
        folder = ROOT / ".cache" / self.name
        python, finished = folder / "bin" / "python", folder / "pins.txt"
        constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        wanted = [*self.pins, *(line for line in constraints if line.partition("==")[0] in self.shared)]
        made_of = "\n".join([*wanted, str(distribution("torch").locate_file(""))])
        if not (finished.is_file() and finished.read_text(encoding="utf-8") == made_of):
            _run([sys.executable, "-m", "venv", "--clear", str(folder)])
            self._link_shared(Path(_run([str(python), "-c", _FIND_PACKAGES]).strip()))
            install = ["install", "--quiet", "--disable-pip-version-check", "--no-compile"]
            _run([str(python), "-m", "pip", *install, *wanted])
            finished.write_text(made_of, encoding="utf-8")
        return python

    def _link_shared(self, packages: Path) -> None:
        for name in self.shared:
            ours = distribution(name)
            for top in {file.parts[0] for file in ours.files or ()} - {"..", "__pycache__"}:  # scripts lie outside
                (packages / top).symlink_to(str(ours.locate_file(top)))

    def run(self, *arguments: str) -> str:
        """Return what its interpreter prints; raise MeasureError when it fails."""
        return _run([str(self.python()), *arguments])

    def versions(self, *packages: str) -> str:
        """Return what is installed there, in words."""
        return self.run("-c", _VERSIONS, *packages).strip()


def _run(command: list[str]) -> str:
    quiet = environment() | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=quiet)
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise MeasureError(f"{' '.join(command[:3])} ... ended with {done.returncode}: {''.join(last)}")
    return done.stdout
