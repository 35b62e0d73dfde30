from pathlib import Path

import pytest

from distill.cli import run as run_command
from distill.errors import ConfigError, InputError
from distill.serve import is_local, make_settings, name_bundles, warn_when_open
from export.machine import usable_cores
from export.serve_settings import ServeSettings


def test_a_bundle_is_served_under_its_own_name_or_the_one_given(tiny_bundle: Path) -> None:
    assert name_bundles([str(tiny_bundle), f"next={tiny_bundle}"]) == {"shop": tiny_bundle, "next": tiny_bundle}


def test_two_bundles_of_one_name_are_told_apart_by_the_user(tiny_bundle: Path) -> None:
    with pytest.raises(InputError, match="NAME="):
        name_bundles([str(tiny_bundle), str(tiny_bundle)])


def test_the_token_comes_from_the_environment_and_workers_from_the_machine(tiny_bundle: Path) -> None:
    settings = make_settings({"shop": tiny_bundle}, {"workers": None}, {"POTSTILL_TOKEN": "sesame"})
    assert settings.token is not None
    assert (settings.token.get_secret_value(), settings.workers) == ("sesame", usable_cores())
    assert "sesame" not in repr(settings)
    assert make_settings({"shop": tiny_bundle}, {}, {"POTSTILL_TOKEN": ""}).token is None


def test_a_setting_out_of_bounds_is_named_as_its_option(tiny_bundle: Path) -> None:
    with pytest.raises(ConfigError, match="--max-wait-ms"):
        make_settings({"shop": tiny_bundle}, {"max_wait_ms": 0}, {})


@pytest.mark.parametrize(
    ("host", "local"), [("127.0.0.1", True), ("localhost", True), ("0.0.0.0", False), ("?", False)]
)
def test_only_loopback_addresses_are_local(host: str, local: bool) -> None:
    assert is_local(host) is local


@pytest.mark.parametrize(("host", "token", "warnings"), [("0.0.0.0", "", 1), ("0.0.0.0", "a", 0), ("127.0.0.1", "", 0)])
def test_an_address_that_others_reach_without_a_token_is_warned_about(
    tiny_bundle: Path, caplog: pytest.LogCaptureFixture, host: str, token: str, warnings: int
) -> None:
    warn_when_open(make_settings({"shop": tiny_bundle}, {"host": host}, {"POTSTILL_TOKEN": token}))
    assert caplog.text.count("anybody who reaches this address may ask") == warnings


def test_every_setting_but_the_token_is_an_option_with_its_description(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["serve", "--help"]) == 0
    shown = capsys.readouterr().out
    wanted = ServeSettings.model_fields.keys() - {"bundles", "token"}
    assert [name for name in wanted if f"--{name.replace('_', '-')}" not in shown] == []
    assert all(ServeSettings.model_fields[name].description for name in wanted)


def test_a_bundle_that_does_not_verify_is_not_served(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["serve", str(tiny_bundle.parent)]) == 1
    assert "pass the folder that `distill run` calls bundle" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [("belo: abstain", 2, "belo"), ("below: abstain", 1, "shop: the bundle proved no threshold")],
)
def test_what_cannot_be_done_with_doubtful_texts_is_said_before_anything_is_served(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, code: int, said: str
) -> None:
    (tmp_path / "doubt.yaml").write_text(content)
    assert run_command(["serve", str(tiny_bundle), "--doubt", str(tmp_path / "doubt.yaml")]) == code
    assert said in capsys.readouterr().err
