"""Facts about explanations: recomputed by asking the bundle itself, without the server."""

from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from scipy.special import logit, logsumexp

from export.explain import log_odds
from export.runtime import Predictor
from tests.serving import local_server

TEXT = "my parcel, the courier  says is late"
WORDS = ["my", "parcel", ",", "the", "courier", "says", "is", "late"]


def ask(bundle: Path, content: Any, **settings: Any) -> tuple[int, Any]:
    with local_server({"shop": bundle}, **settings) as client:
        reply = client.ask("POST", "/explain", content)
    return reply.status, reply.json


def test_a_word_contributes_what_the_log_odds_lose_without_it(tiny_bundle: Path) -> None:
    status, found = ask(tiny_bundle, {"text": TEXT, "label": "payment"})
    predictor = Predictor.load(tiny_bundle)

    def odds(text: str) -> float:
        scaled = predictor.run(predictor.encode([text])).logits[0].astype(np.float64)
        return float(scaled[1] - logsumexp(scaled[[0, 2]]))

    assert status == 200
    assert found["log_odds"] == pytest.approx(odds(TEXT), abs=1e-4)
    reached, contributions = 0, []
    for piece in found["pieces"]:
        if piece["contribution"] is not None:
            without = TEXT[:reached] + TEXT[reached + len(piece["text"]) :]
            contributions.append(odds(TEXT) - odds(without))
        reached += len(piece["text"])
    assert [piece["contribution"] for piece in found["pieces"] if piece["contribution"] is not None] == pytest.approx(
        contributions, abs=1e-4
    )


def test_the_pieces_are_the_words_and_together_the_text(tiny_bundle: Path) -> None:
    _, found = ask(tiny_bundle, {"text": TEXT})
    assert "".join(piece["text"] for piece in found["pieces"]) == TEXT
    assert [piece["text"] for piece in found["pieces"] if piece["contribution"] is not None] == WORDS
    assert found["label"] in ("delivery", "payment", "size")
    assert found["alike"] is None


def test_an_explanation_is_what_openapi_says(showing_bundle: Path) -> None:
    with local_server({"shop": showing_bundle}) as client:
        document = client.ask("GET", "/openapi.json").json
        found = client.ask("POST", "/explain", {"text": TEXT}).json
    wanted = {"$ref": "#/components/schemas/Explanation", "components": document["components"]}
    jsonschema.validate(found, wanted)
    assert "/explain" in document["paths"]
    assert set(found) == set(document["components"]["schemas"]["Explanation"]["properties"])


def test_what_was_cut_off_is_told_and_does_not_slip_in(tiny_bundle: Path) -> None:
    _, found = ask(tiny_bundle, {"text": "the hat " * 40})
    read = "".join(piece["text"] for piece in found["pieces"])
    assert read + found["unread"] == "the hat " * 40
    assert len(read.split()) == 30  # of 32 tokens, two are special


def test_a_long_text_is_left_out_in_groups_of_words(small_bundle: Path) -> None:
    _, found = ask(small_bundle, {"text": "the hat " * 40})
    pieces = [piece for piece in found["pieces"] if piece["contribution"] is not None]
    assert 1 < len(pieces) <= 48


@pytest.mark.parametrize("text", ["", "   ", "a"])
def test_a_text_of_hardly_a_word_has_an_explanation_too(tiny_bundle: Path, text: str) -> None:
    status, found = ask(tiny_bundle, {"text": text})
    assert status == 200
    assert len(found["pieces"]) == len(text.strip())


@pytest.mark.parametrize(
    ("content", "status"),
    [
        ({"text": 5}, 422),
        ({"text": "a", "more": 1}, 422),
        (["a"], 422),
        ({"text": "a", "label": "unheard of"}, 422),
        ({"text": "a", "label": 3}, 422),
        ({"text": "a", "model": "unheard of"}, 404),
        ({"text": "a" * 30_000}, 413),
        ({"text": "\ud800"}, 400),
    ],
)
def test_a_wrong_request_is_refused_with_a_reason(tiny_bundle: Path, content: Any, status: int) -> None:
    found, body = ask(tiny_bundle, content)
    assert (found, bool(body["error"])) == (status, True)


@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
def test_log_odds_are_those_of_the_probability(kind: str) -> None:
    logits = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    scaled = logits.astype(np.float64) / 0.7
    probs = np.exp(scaled - logsumexp(scaled, axis=1, keepdims=True))
    wanted = logit(probs[:, 2]) if kind == "single_label" else scaled[:, 2]
    assert log_odds(logits, 2, kind, 0.7) == pytest.approx(wanted, abs=1e-6)
