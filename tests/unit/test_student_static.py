"""Facts about the student without layers: its hash, its shapes, its start, and the graph that hashes as torch does."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from export.graph import MAX_DIFFERENCE, export_graph, prove_parity
from export.quantize import quantize_int8
from export.runtime import OnnxClassifier
from student.model import Head, build_student
from student.spec import StudentSpec
from student.static import draw_codes, hash_ngrams
from tests.conftest import LABELS

HEAD = Head(LABELS, "single_label_classification")
SIZES = {"kind": "static", "width": 12, "ngram_rows": 40, "ngram_width": 6, "intermediate": 10}
TEXTS = ["my parcel has not arrived", "the invoice is wrong", "these shoes run large", "hello"]


def build(source: Path, kept: np.ndarray | None = None, **spec: object) -> PreTrainedModel:
    return build_student(str(source), StudentSpec(**{**SIZES, **spec}), HEAD, kept, 0).eval()


def logits(model: PreTrainedModel, ids: list[list[int]], mask: list[list[int]]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor(ids), torch.tensor(mask)).logits


@pytest.fixture(scope="module")
def checkpoint(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a saved static student whose n-grams weigh as much as its words."""
    folder = tmp_path_factory.mktemp("static")
    model = build(tiny_encoder)
    with torch.no_grad():
        model.embedder.ngrams.weight.normal_()
        model.embedder.word_scores.weight.normal_()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_encoder).save_pretrained(folder)
    return folder


def test_an_ngram_is_its_tokens_in_their_order() -> None:
    rows = hash_ngrams(torch.tensor([[5, 9, 7, 5, 9, 9, 5]]), draw_codes(11, (2, 3)), 2**20)
    pairs, triples = rows[0, :, 0].tolist(), rows[0, :, 1].tolist()
    assert pairs[1] == pairs[4]  # 5 9
    assert pairs[6] != pairs[1]  # 9 5
    assert len({*triples[2:]}) == 5


def test_an_ngram_knows_nothing_of_tokens_before_it() -> None:
    rows = hash_ngrams(torch.tensor([[1, 2, 5, 9], [7, 8, 5, 9]]), draw_codes(11, (2, 3)), 2**20)[:, 3]
    assert rows[0, 0] == rows[1, 0]
    assert rows[0, 1] != rows[1, 1]


def test_before_the_first_token_stands_nobody() -> None:
    codes = draw_codes(11, (2, 3))
    alone, padded = (hash_ngrams(torch.tensor([ids]), codes, 2**20) for ids in ([5, 9], [10, 10, 5, 9]))
    assert torch.equal(padded[:, 2:], alone)


def test_the_hash_spreads_ngrams_over_the_table_about_as_chance_does() -> None:
    ids = torch.tensor([*itertools.product(range(30), repeat=3)])
    rows = hash_ngrams(ids, draw_codes(31, (3,)), 27_000)
    filled = len(np.unique(rows[:, 2])) / 27_000
    assert filled == pytest.approx(1 - np.exp(-1), abs=0.03)


def test_no_sum_of_codes_leaves_the_integers() -> None:
    rows = hash_ngrams(torch.randint(500, (9, 99)), draw_codes(501, (2, 3)), 1000)
    assert rows.dtype == torch.int32
    assert 0 <= int(rows.min()) <= int(rows.max()) < 1000


def test_padding_on_either_side_changes_nothing(checkpoint: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    alone = logits(model, [[2, 70, 81, 92, 3]], [[1] * 5])
    right = logits(model, [[2, 70, 81, 92, 3, 0, 0]], [[1] * 5 + [0] * 2])
    left = logits(model, [[0, 4, 2, 70, 81, 92, 3]], [[0] * 2 + [1] * 5])
    torch.testing.assert_close(torch.cat([right, left]), alone.expand(2, -1), atol=1e-6, rtol=1e-5)


def test_word_order_changes_the_answer(checkpoint: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    one, other = logits(model, [[2, 70, 81, 92, 3], [2, 81, 70, 92, 3]], [[1] * 5] * 2)
    assert not torch.allclose(one, other, atol=1e-3)


def test_each_slice_of_an_embedding_is_weighted_by_a_score_of_its_own(checkpoint: Path) -> None:
    embedder = AutoModelForSequenceClassification.from_pretrained(checkpoint).embedder
    ids = torch.tensor([[70, 81, 92]])
    with torch.no_grad():
        embedder.word_scores.weight.zero_()
        embedder.word_scores.weight[81, 2] = 50.0
        words, features = embedder.words(ids)[0], embedder(ids, torch.ones_like(ids))[0]
    assert embedder.word_scores.weight.shape[1] == 4
    torch.testing.assert_close(features[6:9], words[1, 6:9])
    torch.testing.assert_close(features[:6], words.mean(dim=0)[:6])


def test_the_strongest_token_of_each_direction_is_a_feature_wherever_it_stands(checkpoint: Path) -> None:
    embedder = AutoModelForSequenceClassification.from_pretrained(checkpoint).embedder
    ids = torch.tensor([[70, 81, 92, 0], [92, 70, 81, 99]])
    with torch.no_grad():
        features = embedder(ids, torch.tensor([[1, 1, 1, 0]] * 2))
        wanted = embedder.words(torch.tensor([70, 81, 92])).amax(dim=0).clamp(min=0)
    assert features.shape == (2, embedder.width) == (2, 12 + 12 + 2 * 6)
    torch.testing.assert_close(features[:, 12:24], wanted.expand(2, -1))


def test_a_width_that_four_heads_cannot_share_has_fewer_of_them(tiny_encoder: Path) -> None:
    assert [build(tiny_encoder, width=width).config.pooling_heads for width in (12, 10, 9)] == [4, 2, 1]


def test_a_text_of_one_token_and_one_of_padding_alone_have_answers(checkpoint: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    assert torch.isfinite(logits(model, [[7], [0]], [[1], [0]])).all()


def test_a_saved_static_student_opens_as_any_checkpoint_does(checkpoint: Path, tiny_encoder: Path) -> None:
    opened = AutoModelForSequenceClassification.from_pretrained(checkpoint)
    assert type(opened).__name__ == "StaticForSequenceClassification"
    assert opened.config.id2label == dict(enumerate(LABELS))
    assert opened.config.problem_type == HEAD.problem_type
    assert AutoConfig.from_pretrained(checkpoint).ngram_rows == 40
    assert (checkpoint / "model.safetensors").is_file()


def test_words_begin_as_what_the_encoder_makes_of_them_alone(tiny_encoder: Path) -> None:
    words = build(tiny_encoder, width=16).embedder.words.weight
    encoder = AutoModel.from_pretrained(tiny_encoder).eval()
    with torch.no_grad():
        means = torch.cat([encoder(torch.tensor([[2, token, 3]])).last_hidden_state.mean(1) for token in (60, 61, 99)])
        everything = torch.cat(
            [encoder(torch.tensor([[2, token, 3]])).last_hidden_state.mean(1) for token in range(218)]
        )
    # All 16 components are there, so distances are kept but for the scale.
    wanted, found = torch.pdist(means - everything.mean(0)), torch.pdist(words[[60, 61, 99]])
    torch.testing.assert_close(found / found[0], wanted / wanted[0], atol=1e-3, rtol=1e-3)


def test_a_trimmed_vocabulary_has_a_row_for_each_token_it_keeps_and_one_for_nobody(tiny_encoder: Path) -> None:
    kept = np.array([0, 1, 2, 3, 60, 61, 99])
    trimmed = build(tiny_encoder, kept, width=8).embedder.words.weight
    assert trimmed.shape == (7 + 1, 8)
    assert (trimmed[-1] == 0).all()
    assert build(tiny_encoder, kept).config.pad_token_id == 0


def test_a_static_student_wider_than_its_source_begins_with_random_directions(tiny_encoder: Path) -> None:
    words = build(tiny_encoder, width=24).embedder.words.weight
    assert words.shape[1] == 24
    assert (words.std(dim=0) > 0).all()


def test_a_static_student_from_a_config_begins_at_random_and_repeats(tiny_encoder: Path) -> None:
    first, second = (build(tiny_encoder, init="config").state_dict() for _ in range(2))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert not torch.equal(first["embedder.words.weight"], build(tiny_encoder).state_dict()["embedder.words.weight"])


def test_the_graph_hashes_as_torch_does_on_odd_shapes(checkpoint: Path, tmp_path: Path) -> None:
    export_graph(checkpoint, tmp_path / "model.onnx")
    assert prove_parity(checkpoint, tmp_path / "model.onnx", TEXTS) <= MAX_DIFFERENCE / 10


def test_the_graph_takes_texts_shorter_than_its_ngrams_in_one_batch_with_longer_ones(
    checkpoint: Path, tmp_path: Path
) -> None:
    export_graph(checkpoint, tmp_path / "model.onnx")
    classifier = OnnxClassifier(tmp_path / "model.onnx", checkpoint / "tokenizer.json", 32)
    alone = np.stack([classifier.logits_one(text) for text in ["", *TEXTS]])
    np.testing.assert_allclose(classifier.logits(["", *TEXTS]), alone, atol=1e-5)


def test_int8_answers_like_fp32(checkpoint: Path, tmp_path: Path) -> None:
    export_graph(checkpoint, tmp_path / "model.onnx")
    coverage = quantize_int8(tmp_path / "model.onnx", tmp_path / "int8.onnx")
    fp32, int8 = (
        OnnxClassifier(tmp_path / name, checkpoint / "tokenizer.json", 32).logits(TEXTS)
        for name in ("model.onnx", "int8.onnx")
    )
    assert (coverage.int8_macs_share, coverage.int8_matmuls) == (1.0, 2)
    assert np.abs(int8 - fp32).max() < 0.1 * np.abs(fp32).max()
