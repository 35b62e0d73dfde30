"""R17 of the fault list in small; `benchmarks/injection.py` runs it with 500 texts."""

from pathlib import Path

import pytest

from tests.injections import ATTACKS, attack_teacher, bare_obeyed, make_attacks

EVERY_KIND_TWICE = make_attacks(2 * len(ATTACKS))


@pytest.mark.parametrize("answers", ["votes", "logprobs"])
def test_no_text_carries_its_command_out_of_the_data(answers: str, tmp_path: Path) -> None:
    outcome = attack_teacher(EVERY_KIND_TWICE, tmp_path / "run", answers=answers, is_trusting=False)
    assert (outcome.flips, outcome.clean_flips, outcome.strangers) == (0, 0, 0)


def test_a_model_that_obeys_any_text_still_stores_no_label_outside_the_set(tmp_path: Path) -> None:
    outcome = attack_teacher(EVERY_KIND_TWICE, tmp_path / "run", answers="votes", is_trusting=True)
    strangers = sum(attack.wanted == "weather" for attack in EVERY_KIND_TWICE)
    assert (outcome.strangers, outcome.rejected) == (0, strangers)
    assert outcome.flips == outcome.texts


def test_the_attacks_do_move_the_mock_when_nothing_fences_the_text() -> None:
    assert bare_obeyed(EVERY_KIND_TWICE) > len(EVERY_KIND_TWICE) / 2
