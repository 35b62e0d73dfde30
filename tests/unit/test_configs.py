"""Every YAML in configs/ is a config that loads."""

from pathlib import Path

import pytest

from distill.config import load_config

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_valid_and_its_head_comment_says_how_to_run_it(path: Path) -> None:
    head = path.read_text(encoding="utf-8").partition("name:")[0]
    assert load_config(path).config.name
    assert f"distill run {path.relative_to(ROOT)}" in head


def test_there_are_configs_to_check() -> None:
    assert CONFIGS
