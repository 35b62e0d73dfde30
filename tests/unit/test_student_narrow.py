"""Facts about making a student narrower: what is kept, that it stays near what it was, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    PreTrainedModel,
    RobertaConfig,
)

from student.errors import StudentError
from student.model import Head, adopt_head, build_student
from student.spec import StudentSpec
from tests.conftest import LABELS

HEAD = Head(LABELS, "single_label_classification")
SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
SAMPLE = torch.randint(5, 60, (40, 9), generator=torch.Generator().manual_seed(0)).tolist()


def save(config: object, folder: Path) -> Path:
    """Write an untrained classifier whose hidden states fill 12 of their 32 dimensions; no two norms are alike."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    turn, _ = torch.linalg.qr(torch.randn(32, 32))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("output.dense.weight", "embeddings.weight")):
                wide = parameter if name.endswith("output.dense.weight") else parameter.T
                wide.copy_(turn[:, :12] @ torch.randn(12, wide.shape[1]) * 0.3)
            elif "LayerNorm" not in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(BertConfig(vocab_size=60, max_position_embeddings=16, **SIZES), tmp_path_factory.mktemp("bert"))


def build(source: Path, kept: np.ndarray | None = None, **spec: object) -> PreTrainedModel:
    return build_student(str(source), StudentSpec(**spec), HEAD, kept, 0, SAMPLE).eval()


def similarities(model: PreTrainedModel) -> torch.Tensor:
    """Return how alike the last states of the sample's texts are to each other, centred, one number a pair."""
    with torch.no_grad():
        states = model.base_model(torch.tensor(SAMPLE)).last_hidden_state.mean(dim=1)
    states = torch.nn.functional.normalize(states - states.mean(dim=0), dim=-1)
    return (states @ states.T).flatten()


def resemblance(one: PreTrainedModel, other: PreTrainedModel) -> float:
    return float(torch.corrcoef(torch.stack([similarities(one), similarities(other)]))[0, 1])


def test_a_narrower_student_has_the_sizes_asked_for(source: Path) -> None:
    config = build(source, layers=2, width=16, intermediate=20).config
    assert (config.hidden_size, config.num_attention_heads, config.intermediate_size) == (16, 2, 20)
    assert config.num_hidden_layers == 2


def test_a_narrower_student_sees_the_likeness_of_texts_as_its_source_does(source: Path) -> None:
    wide = build(source, layers=3)
    assert resemblance(build(source, layers=3, width=16), wide) > 0.6
    assert resemblance(build(source, layers=3, width=16, init="config"), wide) < 0.4


def test_a_wider_cut_resembles_the_source_more_than_a_narrow_one(source: Path) -> None:
    wide = build(source, layers=3)
    found = [resemblance(build(source, layers=3, width=width), wide) for width in (8, 16, 24)]
    assert found == sorted(found)


def test_units_that_do_nothing_are_left_out_without_a_loss(source: Path, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(source)
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            layer.output.dense.weight[:, ::2] = 0
    model.save_pretrained(tmp_path)
    wide, narrower = build(tmp_path, layers=3), build(tmp_path, layers=3, intermediate=24)
    ids = torch.tensor(SAMPLE)
    with torch.no_grad():
        states = [model.base_model(ids).last_hidden_state for model in (wide, narrower)]
    torch.testing.assert_close(states[1], states[0], atol=1e-3, rtol=1e-3)


def test_the_heads_that_add_most_are_kept(source: Path, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(source)
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            layer.attention.output.dense.weight[:, 8:24] = 0  # the second and the third of four heads
    model.save_pretrained(tmp_path)
    narrower = build(tmp_path, layers=[0], width=16)
    directions = narrower.last_basis.directions
    query = model.bert.encoder.layer[0].attention.self.query.weight @ directions
    kept = torch.cat([query[:8], query[24:]])
    torch.testing.assert_close(narrower.bert.encoder.layer[0].attention.self.query.weight, kept)


def test_a_narrower_student_keeps_the_rows_of_a_trimmed_vocabulary(source: Path) -> None:
    kept = np.arange(0, 60, 2)
    student = build_student(str(source), StudentSpec(width=16), HEAD, kept, 0, [[1, 2, 3], [4, 5, 6]])
    words = AutoModelForSequenceClassification.from_pretrained(source).bert.embeddings.word_embeddings.weight
    wanted = words[::2] @ student.last_basis.directions
    torch.testing.assert_close(student.bert.embeddings.word_embeddings.weight, wanted)


def test_a_narrower_student_begins_with_the_projected_head_of_its_teacher(source: Path) -> None:
    student = build(source, layers=3, width=16)
    weight, bias = torch.randn(3, 32), torch.randn(3)
    assert adopt_head(student, weight, bias)
    wide = build(source, layers=3)
    adopt_head(wide, weight, bias)
    ids = torch.tensor(SAMPLE)
    with torch.no_grad():
        found, wanted = ((model(ids).logits).flatten() for model in (student, wide))
    assert float(torch.corrcoef(torch.stack([found, wanted]))[0, 1]) > 0.6


def test_roberta_is_made_narrower_too(tmp_path: Path) -> None:
    folder = save(RobertaConfig(vocab_size=60, max_position_embeddings=18, pad_token_id=1, **SIZES), tmp_path)
    wide = build(folder, layers=3)
    assert resemblance(build(folder, layers=3, width=16), wide) > 0.6


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        pytest.param({"width": 40, "heads": 5}, "at most the 32", id="wider than the source"),
        pytest.param({"width": 16, "heads": 4}, "set student.heads to student.width / 8", id="heads of another size"),
        pytest.param({"intermediate": 64}, "at most the 48", id="more units than there are"),
        pytest.param({"width": 20, "heads": 3}, "multiple", id="width and heads"),
    ],
)
def test_sizes_that_cannot_be_copied_are_refused(source: Path, spec: dict[str, int], said: str) -> None:
    with pytest.raises(StudentError, match=said):
        build(source, **spec)


def test_an_architecture_unlike_bert_is_refused_with_advice(tmp_path: Path) -> None:
    config = DistilBertConfig(vocab_size=60, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=16)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(StudentError, match=r"set student\.init to config"):
        build(tmp_path, layers=2, width=16)


def test_a_narrower_student_needs_texts_to_measure_on(source: Path) -> None:
    with pytest.raises(StudentError, match="no texts"):
        build_student(str(source), StudentSpec(width=16), HEAD, None, 0)
