"""Facts about the student without layers: its hash, its shapes, its start, and the graph that hashes as torch does."""

import itertools
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from export.graph import MAX_DIFFERENCE, export_graph, prove_parity
from export.quantize import quantize_int8
from export.runtime import OnnxClassifier
from student.model import Head, build_student
from student.spec import StudentSpec
from student.static import draw_codes, draw_windows, hash_ngrams
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
        model.embedder.ngrams.weight[1:].normal_()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_encoder).save_pretrained(folder)
    return folder


def hashed(ids: list[list[int]], lengths: tuple[int, ...], rows: int) -> torch.Tensor:
    """Return the rows of tokens below 10, of which 10 is nobody."""
    return hash_ngrams(torch.tensor(ids), draw_codes(10, lengths), draw_windows(lengths), rows)


def test_an_ngram_is_its_tokens_in_their_order() -> None:
    pairs, triples = hashed([[5, 9, 7, 5, 9, 9, 5]], (2, 3), 2**20)[0].tolist()
    assert len(pairs) == len(triples) == 7 + 2
    assert pairs[2] == pairs[5]  # 5 9
    assert pairs[7] != pairs[2]  # 9 5
    assert len({*triples}) == 9


def test_an_ngram_knows_nothing_of_tokens_around_it() -> None:
    (one_pairs, one_triples), (other_pairs, other_triples) = hashed([[1, 2, 5, 9, 3], [7, 8, 5, 9, 4]], (2, 3), 2**20)
    assert one_pairs[4] == other_pairs[4]  # 5 9
    assert not (one_triples == other_triples).any()


def test_lengths_do_not_share_their_codes() -> None:
    pairs, triples = hashed([[5, 9]], (2, 3), 2**20)[0].tolist()
    assert not {*pairs[1:]} & {*triples}


def test_beyond_both_ends_stands_nobody() -> None:
    alone, padded = hashed([[5, 9]], (2, 3), 2**20)[0], hashed([[10, 10, 5, 9, 10]], (2, 3), 2**20)[0]
    assert torch.equal(padded[:, 2:-1], alone)
    assert not padded[:, :2].any()
    assert not padded[:, -1].any()


def test_the_hash_spreads_ngrams_over_the_table_about_as_chance_does() -> None:
    ids = torch.tensor([*itertools.product(range(30), repeat=3)])
    rows = hash_ngrams(ids, draw_codes(30, (3,)), draw_windows((3,)), 27_000)
    filled = len(np.unique(rows[:, 0, 2])) / 27_000
    assert filled == pytest.approx(1 - np.exp(-1), abs=0.03)


def test_sums_of_codes_are_exact_in_floats() -> None:
    lengths, ids = (2, 3), torch.randint(500, (9, 99))
    codes = draw_codes(500, lengths)
    rows = hash_ngrams(ids, codes, draw_windows(lengths), 1000)
    wanted = sum(codes[ids[:, place : 97 + place], 2 + place] for place in range(3)) % 1000
    assert rows.dtype == torch.int32
    assert torch.equal(rows[:, 1, 2:-2], wanted)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(hash_ngrams(ids, codes, draw_windows(lengths), 1000), rows)


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


def test_a_longer_embedding_counts_for_more(checkpoint: Path) -> None:
    embedder = AutoModelForSequenceClassification.from_pretrained(checkpoint).embedder
    ids, mask = torch.tensor([[70, 81, 92], [81, 81, 81]]), torch.ones(2, 3, dtype=torch.int64)
    with torch.no_grad():
        embedder.ngrams.weight.zero_()
        before = (embedder(ids, mask)[0] - embedder(ids, mask)[1])[:12].norm()
        embedder.words.weight[81] *= 50
        after = (embedder(ids, mask)[0] - embedder(ids, mask)[1])[:12].norm()
    assert after < 0.1 * before


def test_a_text_said_twice_is_the_same_text_but_for_its_seam(checkpoint: Path) -> None:
    embedder = AutoModelForSequenceClassification.from_pretrained(checkpoint).embedder
    with torch.no_grad():
        embedder.ngrams.weight.zero_()
        once, twice = (embedder(ids, torch.ones_like(ids)) for ids in (torch.tensor([[70, 81] * k]) for k in (1, 2)))
    torch.testing.assert_close(once, twice, atol=1e-3, rtol=1e-2)


def test_the_strongest_token_of_each_direction_is_a_feature_wherever_it_stands(checkpoint: Path) -> None:
    embedder = AutoModelForSequenceClassification.from_pretrained(checkpoint).embedder
    ids = torch.tensor([[70, 81, 92, 0], [92, 70, 81, 99]])
    with torch.no_grad():
        features = embedder(ids, torch.tensor([[1, 1, 1, 0]] * 2))
        wanted = embedder.words(torch.tensor([70, 81, 92])).amax(dim=0).clamp(min=0)
    assert features.shape == (2, embedder.width) == (2, 12 + 6 + 12)
    torch.testing.assert_close(features[:, 18:], wanted.expand(2, -1))


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


def test_onnxruntime_turns_the_bytes_of_each_table_into_floats_once(checkpoint: Path, tmp_path: Path) -> None:
    export_graph(checkpoint, tmp_path / "model.onnx")
    quantize_int8(tmp_path / "model.onnx", tmp_path / "int8.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(tmp_path / "int8.onnx", options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds.count("DequantizeLinear") == 2
