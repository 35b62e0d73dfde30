"""Imports point one way, and what serves in production stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ALLOWED = {
    "teacher": {"teacher"},
    "student": {"student"},
    "export": {"export"},
    "distill": {"distill", "teacher", "student", "export"},
}
FILES = [path for package in ALLOWED for path in sorted((ROOT / package).rglob("*.py"))]
SERVING = [name for name in ("runtime", "server", "bundle", "bench") if (ROOT / "export" / f"{name}.py").exists()]
HEAVY = ("torch", "transformers", "datasets")


def imported_packages(path: Path) -> set[str]:
    """Return the top-level names of every import in `path`, those inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            names.add((node.module or "").partition(".")[0])
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_packages_below_it(path: Path) -> None:
    ours = imported_packages(path) & set(ALLOWED)
    assert ours <= ALLOWED[path.relative_to(ROOT).parts[0]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_carries_the_name_of_a_third_party_package(path: Path) -> None:
    assert path.stem not in {
        "onnx",
        "torch",
        "transformers",
        "datasets",
        "tokenizers",
        "numpy",
        "yaml",
        "click",
    }


@pytest.mark.parametrize(
    "modules",
    [
        pytest.param(", ".join(f"export.{name}" for name in SERVING), id="serving"),
        pytest.param("distill.cli, distill.config, distill.starter, distill.predict", id="command line"),
    ],
)
def test_importing_it_loads_nothing_heavy(modules: str) -> None:
    program = f"import sys, {modules}; print([name for name in {HEAVY} if name in sys.modules])"
    child = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert child.stdout.strip() == "[]", child.stderr
