"""Facts about building a student: which tensors are copied, from five architectures, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
)

from student.errors import StudentError
from student.model import Head, build_student, choose_layers, parameter_count
from student.spec import StudentSpec

HEAD = Head(("delivery", "payment", "size"), "single_label_classification")
KEPT = np.array([0, 1, 3, 7, 8, 20, 21, 39])
SIZES = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 24}
CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "bert": lambda: BertConfig(vocab_size=40, max_position_embeddings=32, **SIZES),
    "distilbert": lambda: DistilBertConfig(
        vocab_size=40, dim=16, n_layers=4, n_heads=2, hidden_dim=24, max_position_embeddings=32
    ),
    "roberta": lambda: RobertaConfig(vocab_size=40, max_position_embeddings=34, **SIZES),
    "electra": lambda: ElectraConfig(vocab_size=40, embedding_size=12, max_position_embeddings=32, **SIZES),
    "modernbert": lambda: ModernBertConfig(
        vocab_size=40, pad_token_id=0, bos_token_id=1, eos_token_id=3, cls_token_id=1, sep_token_id=3, **SIZES
    ),
}
# Names of the numbered layers and of the word embedding in a classifier of each architecture.
LAYERS = {
    "bert": "bert.encoder.layer.",
    "distilbert": "distilbert.transformer.layer.",
    "roberta": "roberta.encoder.layer.",
    "electra": "electra.encoder.layer.",
    "modernbert": "model.layers.",
}
EMBEDDINGS = {
    "bert": "bert.embeddings.word_embeddings.weight",
    "distilbert": "distilbert.embeddings.word_embeddings.weight",
    "roberta": "roberta.embeddings.word_embeddings.weight",
    "electra": "electra.embeddings.word_embeddings.weight",
    "modernbert": "model.embeddings.tok_embeddings.weight",
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a folder with an untrained 4-layer checkpoint of each architecture."""
    folders = {}
    for seed, (name, config) in enumerate(CONFIGS.items()):
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_config(config())
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)  # no two layers, norms included, are alike
        folders[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(folders[name])
    return folders


def build(
    source: Path, kept: np.ndarray | None = None, head: Head = HEAD, seed: int = 0, **spec: object
) -> PreTrainedModel:
    return build_student(str(source), StudentSpec(**spec), head, kept, seed)


def tensors(source: Path) -> dict[str, torch.Tensor]:
    return AutoModelForSequenceClassification.from_pretrained(source).state_dict()


@pytest.mark.parametrize("name", list(CONFIGS))
def test_exactly_the_chosen_layers_and_embedding_rows_are_copied(sources: dict[str, Path], name: str) -> None:
    original = tensors(sources[name])
    student = build(sources[name], KEPT, layers=[0, 3]).state_dict()
    compared = 0
    for key, tensor in student.items():
        if key.startswith(LAYERS[name]):
            position, rest = key.removeprefix(LAYERS[name]).split(".", 1)
            wanted = original[f"{LAYERS[name]}{[0, 3][int(position)]}.{rest}"]
        elif key == EMBEDDINGS[name]:
            wanted = original[key][torch.from_numpy(KEPT)]
        elif key.startswith("classifier"):
            continue  # other labels than the source has
        else:
            wanted = original[key]
        assert torch.equal(tensor, wanted), key
        compared += 1
    assert compared >= 16
    assert student[EMBEDDINGS[name]].shape[0] == len(KEPT)
    assert {key.removeprefix(LAYERS[name]).split(".")[0] for key in student if key.startswith(LAYERS[name])} == {
        "0",
        "1",
    }


@pytest.mark.parametrize("name", list(CONFIGS))
def test_a_full_copy_gives_the_hidden_states_of_the_source(sources: dict[str, Path], name: str) -> None:
    tokens = torch.tensor([[1, 5, 9, 22, 3]])
    states = []
    for model in (AutoModelForSequenceClassification.from_pretrained(sources[name]), build(sources[name], layers=4)):
        with torch.no_grad():
            states.append(model.eval().base_model(input_ids=tokens).last_hidden_state)
    torch.testing.assert_close(states[1], states[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_trimmed_tokens_mean_what_they_meant(sources: dict[str, Path], name: str) -> None:
    full, trimmed = (build(sources[name], kept, layers=4) for kept in (None, KEPT))
    rows = torch.tensor([[2, 4, 5, 7]])
    with torch.no_grad():
        after = trimmed.eval().base_model(input_ids=rows).last_hidden_state
        before = full.eval().base_model(input_ids=torch.from_numpy(KEPT)[rows]).last_hidden_state
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_a_student_has_no_dropout(sources: dict[str, Path], name: str) -> None:
    student = build(sources[name], layers=2)
    assert [module.p for module in student.modules() if isinstance(module, torch.nn.Dropout) and module.p] == []
    tokens = torch.tensor([[1, 5, 9, 3]])
    torch.testing.assert_close(student.train()(tokens).logits, student.train()(tokens).logits)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_a_saved_student_is_a_standard_checkpoint(sources: dict[str, Path], tmp_path: Path, name: str) -> None:
    student = build(sources[name], KEPT, layers=2)
    student.save_pretrained(tmp_path)
    opened = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert opened.config.id2label == dict(enumerate(HEAD.labels))
    assert opened.config.problem_type == HEAD.problem_type
    assert opened.config.vocab_size == len(KEPT)
    assert all(torch.equal(tensor, opened.state_dict()[key]) for key, tensor in student.state_dict().items())


@pytest.mark.parametrize("name", list(CONFIGS))
def test_a_student_from_a_config_is_random_and_repeats_with_its_seed(sources: dict[str, Path], name: str) -> None:
    students = [
        build(sources[name], KEPT, seed=seed, init="config", layers=6, width=24, heads=3).state_dict()
        for seed in (1, 1, 2)
    ]
    assert all(torch.equal(tensor, students[1][key]) for key, tensor in students[0].items())
    assert not torch.equal(students[0][EMBEDDINGS[name]], students[2][EMBEDDINGS[name]])
    assert {key.removeprefix(LAYERS[name]).split(".")[0] for key in students[0] if key.startswith(LAYERS[name])} == set(
        "012345"
    )
    widths = [tensor.shape for key, tensor in students[0].items() if key.startswith(LAYERS[name]) and tensor.ndim == 2]
    assert {max(shape) for shape in widths} >= {96}
    assert {min(shape) for shape in widths} == {24}


def test_the_padding_row_moves_with_the_vocabulary(sources: dict[str, Path]) -> None:
    student = build(sources["roberta"], KEPT, layers=2)
    assert CONFIGS["roberta"]().pad_token_id == 1
    assert student.config.pad_token_id == 1
    moved = build(sources["roberta"], KEPT[1:], layers=2)
    assert moved.config.pad_token_id == 0


def test_special_tokens_named_by_the_config_move_with_the_vocabulary(sources: dict[str, Path]) -> None:
    student = build(sources["modernbert"], np.array([0, 1, 3, 7]), layers=2)
    assert (student.config.bos_token_id, student.config.eos_token_id) == (1, 2)
    assert (student.config.cls_token_id, student.config.sep_token_id) == (1, 2)


def test_a_copied_layer_keeps_its_kind_of_attention(sources: dict[str, Path]) -> None:
    kinds = CONFIGS["modernbert"]().layer_types
    assert kinds[0] == kinds[3] != kinds[2]
    assert build(sources["modernbert"], layers=[0, 3]).config.layer_types == [kinds[0], kinds[3]]
    assert build(sources["modernbert"], layers=[0, 2, 3]).config.layer_types == [kinds[0], kinds[2], kinds[3]]


def test_a_layer_that_cannot_stand_first_is_refused(sources: dict[str, Path]) -> None:
    with pytest.raises(StudentError, match="include layer 0"):
        build(sources["modernbert"], layers=[1, 3])


def test_the_classifier_is_copied_where_the_source_answers_the_same_labels(tiny_classifier: Path) -> None:
    student = build(tiny_classifier, layers=2).state_dict()
    assert torch.equal(student["classifier.weight"], tensors(tiny_classifier)["classifier.weight"])


def test_the_classifier_starts_anew_where_the_labels_are_others_or_in_another_order(tiny_classifier: Path) -> None:
    original = tensors(tiny_classifier)["classifier.weight"]
    for labels in (("size", "payment", "delivery"), ("a", "b", "c"), ("a", "b", "c", "d")):
        student = build(tiny_classifier, head=Head(labels, HEAD.problem_type), layers=2)
        weight = student.state_dict()["classifier.weight"]
        assert weight.shape == (len(labels), 16)
        assert not torch.equal(weight[:3], original)


def test_the_same_seed_gives_the_same_new_head(tiny_encoder: Path) -> None:
    heads = [build(tiny_encoder, seed=seed, layers=2).state_dict()["classifier.weight"] for seed in (1, 1, 2)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


@pytest.mark.parametrize(
    ("layers", "available", "wanted"),
    [
        (1, 6, [5]),
        (2, 6, [2, 5]),
        (3, 6, [1, 3, 5]),
        (4, 6, [0, 2, 3, 5]),
        (6, 6, [0, 1, 2, 3, 4, 5]),
        (4, 12, [2, 5, 8, 11]),
        (1, 1, [0]),
        ([2], 3, [2]),
        ([0, 2], 3, [0, 2]),
    ],
)
def test_the_last_layer_of_each_block_is_chosen(layers: int | list[int], available: int, wanted: list[int]) -> None:
    assert choose_layers(layers, available) == wanted


@pytest.mark.parametrize(("layers", "wanted"), [(1, [5]), (2, [0, 5]), (3, [0, 2, 5]), ([2, 4], [2, 4])])
def test_a_first_layer_unlike_the_others_stays(layers: int | list[int], wanted: list[int]) -> None:
    assert choose_layers(layers, 6, keeps_first=True) == wanted


def test_every_possible_number_of_layers_gives_distinct_rising_layers() -> None:
    for available in range(1, 30):
        for layers in range(1, available + 1):
            chosen = choose_layers(layers, available)
            assert sorted(set(chosen)) == chosen
            assert len(chosen) == layers
            assert chosen[-1] == available - 1


@pytest.mark.parametrize("layers", [0, -1, 7, [], [0, 6], [-1], [2, 1], [1, 1]])
def test_layers_that_are_not_there_are_refused_with_those_that_are(layers: int | list[int]) -> None:
    with pytest.raises(StudentError, match=r"wanted (1 to 6|rising layer numbers from 0 to 5)"):
        choose_layers(layers, 6)


def test_a_random_student_may_have_more_layers_than_its_model() -> None:
    assert choose_layers(8, 6, copies=False) == list(range(8))


def test_a_width_that_the_heads_do_not_divide_is_refused(tiny_encoder: Path) -> None:
    with pytest.raises(StudentError, match="found width 24 with 5 heads"):
        build(tiny_encoder, init="config", layers=1, width=24, heads=5)


def test_shared_parameters_count_once() -> None:
    linear = torch.nn.Linear(3, 4)
    assert parameter_count(torch.nn.Sequential(linear, torch.nn.ReLU(), linear)) == 16
