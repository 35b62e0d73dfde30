import logging
from pathlib import Path

import numpy as np
import onnx
import pytest

from export.classifier import OnnxClassifier
from export.errors import ExportError
from export.fallback import layers_of, worst_first
from export.graph import export_graph
from export.metrics import softmax
from export.plan import QUANTILES, Ranking, texts_at_quantiles, time_variants
from export.variants import EVEN_INPUTS, PRESET, VARIANTS, Material, build_variants, even_material, plain_material

TEXTS = ["my parcel has not arrived", "the invoice is wrong", "these shoes run large", "hello", ""]


@pytest.fixture(scope="module")
def material(tiny_classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Material:
    graph = tmp_path_factory.mktemp("variants") / "graph.onnx"
    export_graph(tiny_classifier, graph)
    return plain_material(tiny_classifier, graph, TEXTS)


def _classifier(material: Material, path: Path) -> OnnxClassifier:
    return OnnxClassifier(path, material.checkpoint / "tokenizer.json", 64)


def test_every_variant_answers_nearly_as_fp32_does(material: Material, tmp_path: Path) -> None:
    variants, failed = build_variants(material, tmp_path)
    assert failed == {}
    assert {variant.name for variant in variants} == set(VARIANTS)
    wanted = _classifier(material, material.graph).logits(TEXTS)
    for variant in variants:
        found = _classifier(material, variant.path).logits(TEXTS)
        assert np.abs(found - wanted).max() < 0.05
        assert variant.coverage is None or variant.coverage.int8_macs_share > 0.9


def test_building_variants_leaves_the_root_logger_as_it_was(material: Material, tmp_path: Path) -> None:
    before = logging.root.level, list(logging.root.handlers), logging.root.manager.disable
    build_variants(material, tmp_path, ["block_int8", "fused_dynamic_int8"])
    assert (logging.root.level, list(logging.root.handlers), logging.root.manager.disable) == before


def test_a_variant_that_cannot_be_built_is_named_with_its_reason(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(material: Material, target: Path) -> None:
        raise ExportError("no such product")

    monkeypatch.setattr("export.variants.VARIANTS", {PRESET: VARIANTS[PRESET], "other": refuse})
    variants, failed = build_variants(material, tmp_path)
    assert ([variant.name for variant in variants], failed) == ([PRESET], {"other": "no such product"})


def test_texts_are_timed_at_the_lengths_of_the_corpus(material: Material) -> None:
    texts = [" ".join(["parcel"] * words) for words in range(1, 12)]
    found = texts_at_quantiles(_classifier(material, material.graph), texts[::-1])
    assert len(found) == len(QUANTILES)
    assert [tokens for tokens, _ in found] == [len(texts[round(part * 10)].split()) + 2 for part in QUANTILES]


def test_no_text_to_time_on_is_refused(material: Material) -> None:
    with pytest.raises(ExportError, match=r"set export\.plan to preset") as caught:
        texts_at_quantiles(_classifier(material, material.graph), [])
    assert "no text" in str(caught.value)


def _rank(monkeypatch: pytest.MonkeyPatch, material: Material, **taken: list[list[int]]) -> Ranking:
    """Rank variants that took so many nanoseconds (repeats, texts)."""
    samples = {name: np.array(rows) for name, rows in taken.items()}
    monkeypatch.setattr("export.plan.measure_interleaved", lambda *given, **named: dict(samples))
    classifier = _classifier(material, material.graph)
    return time_variants({name: classifier for name in taken if name != "control"}, TEXTS[:2], "slow")


def test_timings_come_the_fastest_first(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    ranking = _rank(monkeypatch, material, slow=[[9, 3], [5, 3]], fast=[[2, 2], [4, 2]], control=[[9, 3], [5, 3]])
    assert ranking.is_sound
    assert [timing.name for timing in ranking.timings] == ["fast", "slow"]
    assert ranking.timings[1].milliseconds == pytest.approx((7e-6, 3e-6))


def test_one_process_that_was_put_aside_decides_nothing(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = [[10, 20]] * 20
    fast = [[9, 18]] * 19 + [[9000, 18]]
    ranking = _rank(monkeypatch, material, slow=slow, fast=fast, control=slow)
    assert ranking.timings[0].name == "fast"
    assert ranking.timings[0].ratio.estimate == pytest.approx(0.9)


@pytest.mark.parametrize("control", [[[11, 22]] * 20, [[5, 10], [20, 40]] * 10])
def test_the_reference_comes_first_where_it_differs_from_itself(
    control: list[list[int]], material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranking = _rank(monkeypatch, material, fast=[[9, 18]] * 20, slow=[[10, 20]] * 20, control=control)
    assert not ranking.is_sound
    assert [timing.name for timing in ranking.timings] == ["slow", "fast"]


def test_the_nodes_of_a_graph_are_grouped_by_layer(material: Material) -> None:
    layers = layers_of(material.graph)
    assert list(layers) == ["embeddings", *(f"layers.{index}" for index in range(4)), "head"]
    assert [len(nodes) for nodes in layers.values()] == [1, 4, 4, 4, 5, 2]
    named = {node.name for node in onnx.load(material.graph).graph.node}
    assert {node for nodes in layers.values() for node in nodes} <= named


def test_the_layer_whose_int8_products_shift_the_answers_most_comes_first() -> None:
    reference = softmax(np.array([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]]))
    errors = {"a": 0.3, "b": 0.1, "c": 0.2}  # of the answers while that layer alone is fp32

    def answer_keeping(nodes: object) -> np.ndarray:
        return softmax(np.log(reference) + errors[str(nodes)] * np.array([1.0, -1.0, 0.0]))

    assert worst_first({name: name for name in errors}, answer_keeping, reference, "single_label") == ["b", "c", "a"]


def test_a_graph_without_outliers_is_quantized_as_it_is(material: Material) -> None:
    found = even_material(material)
    assert (found.source, found.evened.name, found.evened.applied) == (material.graph, EVEN_INPUTS, False)
    assert found.evened.reason == "no product would gain enough"


def test_a_text_of_more_tokens_than_the_student_takes_is_cut(material: Material) -> None:
    found = even_material(plain_material(material.checkpoint, material.graph, ["parcel " * 5000]))
    assert found.evened.change == 0.0
