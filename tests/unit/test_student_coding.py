from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from student.coding import CODES, CodedEmbedding, code_tokens, embed_by_codes, read_codes, save_checkpoint

OWNERS = np.array([0, 2, 3, 50])


def related_rows(tokens: int, width: int) -> Tensor:
    """Return rows of which a few directions explain most, as of words."""
    random = np.random.default_rng(0)
    strength = np.geomspace(8, 0.05, width)
    return torch.from_numpy((random.normal(size=(tokens, width)) * strength + 1).astype(np.float32))


@pytest.fixture
def classifier(tiny_classifier: Path) -> PreTrainedModel:
    model = AutoModelForSequenceClassification.from_pretrained(tiny_classifier).eval()
    words = model.get_input_embeddings().weight
    with torch.no_grad():
        words.copy_(related_rows(*words.shape))
    return model


def logits(model: PreTrainedModel) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=torch.arange(4, 64).reshape(3, 20)).logits
    return found


def test_owners_keep_their_rows_and_others_are_near_theirs() -> None:
    table = related_rows(3000, 96)
    coded = code_tokens(table, OWNERS)
    embedding = CodedEmbedding(table[coded.owners], coded)
    found = embedding.table()
    assert coded.owners.tolist() == OWNERS.tolist()
    assert torch.equal(found[OWNERS], table[OWNERS])
    others = np.setdiff1d(np.arange(3000), OWNERS)
    error = (found[others] - table[others]).square().sum() / (table[others] - table[others].mean(dim=0)).square().sum()
    assert error < 0.1
    assert coded.codes.shape == (3000, 16)
    assert coded.codes.dtype == torch.uint8


def test_directions_serve_related_rows_better_than_pieces_of_them() -> None:
    """What one byte for each six numbers of a row leaves, when nothing tells it what belongs together."""
    from sklearn.cluster import KMeans

    table = related_rows(1500, 96)
    coded = code_tokens(table, np.array([0]))
    found = CodedEmbedding(table[coded.owners], coded).table()
    pieces = [KMeans(255, n_init=1, random_state=0).fit(piece) for piece in torch.split(table, 6, dim=1)]
    naive = sum(piece.inertia_ for piece in pieces)
    assert (found - table).square().sum() < 0.6 * naive


def test_fewer_tokens_than_a_byte_tells_apart_are_all_but_exact_where_all_directions_count() -> None:
    table = related_rows(40, 16)
    coded = code_tokens(table, OWNERS[:3])
    found = CodedEmbedding(table[coded.owners], coded).table()
    assert (found - table).square().sum() < 1e-6 * (table - table.mean(dim=0)).square().sum()


@pytest.mark.parametrize("width", [8, 24, 130])
def test_any_width_can_be_coded(width: int) -> None:
    table = related_rows(300, width)
    coded = code_tokens(table, OWNERS)
    assert CodedEmbedding(table[coded.owners], coded).table().shape == table.shape
    assert coded.directions.shape[1] == width


def test_a_model_that_embeds_by_codes_answers_as_its_standard_checkpoint(
    classifier: PreTrainedModel, tmp_path: Path
) -> None:
    embed_by_codes(classifier, code_tokens(classifier.get_input_embeddings().weight, OWNERS))
    save_checkpoint(classifier, tmp_path)
    again, coded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval(), read_codes(tmp_path)
    assert coded is not None
    torch.testing.assert_close(logits(again), logits(classifier))
    embed_by_codes(again, coded)
    torch.testing.assert_close(logits(again), logits(classifier))


def test_rows_and_the_offset_learn_and_codes_do_not(classifier: PreTrainedModel) -> None:
    embed_by_codes(classifier, code_tokens(classifier.get_input_embeddings().weight, OWNERS))
    embedding = classifier.get_input_embeddings()
    classifier(input_ids=torch.tensor([[2, 3, 50], [7, 8, 9]])).logits.square().sum().backward()
    learned = embedding.own.weight.grad.abs().sum(dim=1) > 0
    assert learned.tolist() == [False, True, True, True, True]  # the offset is the last
    assert {name for name, _ in embedding.named_parameters()} == {"own.weight"}


def test_a_checkpoint_without_the_file_has_no_codes(tmp_path: Path) -> None:
    assert read_codes(tmp_path) is None
    assert not (tmp_path / CODES).exists()
