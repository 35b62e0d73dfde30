from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from student.sharing import SharedRows, borrowing, choose_owners, read_places, share_rows
from student.static import StaticConfig, StaticForSequenceClassification
from student.warm_start import states_alone

TEXTS = ["my parcel has not arrived", "my card was declined", "where is my parcel", "the card was stolen"]


@pytest.fixture
def owners(tiny_encoder: Path) -> NDArray[np.int64]:
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    rows = [np.asarray(row) for row in tokenizer(TEXTS)["input_ids"]]
    return choose_owners(tokenizer, rows, least_rows=0, fewest_others=0)


@pytest.fixture
def shared(tiny_encoder: Path, owners: NDArray[np.int64]) -> SharedRows:
    return share_rows(
        states_alone(str(tiny_encoder)), owners, AutoTokenizer.from_pretrained(tiny_encoder).all_special_ids
    )


def logits(model: PreTrainedModel, ids: NDArray[np.int64]) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=torch.from_numpy(ids)).logits
    return found


def test_a_token_of_the_texts_and_a_special_one_have_rows_of_their_own(
    tiny_encoder: Path, owners: NDArray[np.int64]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    used = {token for row in tokenizer(TEXTS)["input_ids"] for token in row}
    assert set(owners.tolist()) == used | set(tokenizer.all_special_ids)


def test_the_lowest_ids_fill_up_what_is_left(tiny_encoder: Path) -> None:
    owners = choose_owners(
        AutoTokenizer.from_pretrained(tiny_encoder), [np.array([100, 200])], least_rows=20, fewest_others=0
    )
    assert len(owners) == 20
    assert set(owners) >= {100, 200, *range(10)}


def test_a_few_others_have_rows_of_their_own_too(tiny_encoder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    for fewest, owners in ((198, 20), (199, 218)):
        assert len(choose_owners(tokenizer, [], least_rows=20, fewest_others=fewest)) == owners


def test_a_token_without_a_row_reads_the_nearest_that_is_not_special() -> None:
    embeddings = torch.tensor([[9.0, 1.0], [9.1, 1.0], [8.0, 1.2], [-7.0, 3.0], [-7.1, 3.1], [-9.0, -9.0]])
    shared = share_rows(embeddings, np.array([0, 2, 4]), special=[0])
    assert shared.owners[shared.places].tolist() == [0, 2, 2, 4, 4, 4]


def test_texts_that_borrow_are_counted(shared: SharedRows) -> None:
    own, other = shared.owners[:2], np.array([np.setdiff1d(np.arange(len(shared.places)), shared.owners)[0]])
    assert borrowing(shared.owners, [own, other, own, own]) == 0.25
    assert borrowing(shared.owners, []) == 0.0


def test_a_static_student_reads_a_borrowed_row_and_the_n_grams_of_its_owner(shared: SharedRows) -> None:
    torch.manual_seed(0)
    config = StaticConfig(vocab_size=len(shared.owners), num_labels=3, hidden_size=8, ngram_rows=64, ngram_width=4)
    student = StaticForSequenceClassification(config)
    ids = np.arange(4, 24).reshape(2, 10)
    wanted = logits(student, shared.places[ids])
    read_places(student, shared)
    assert student.config.vocab_size == len(shared.places)
    torch.testing.assert_close(logits(student, ids), wanted)


def test_a_static_student_keeps_its_places_in_its_checkpoint(shared: SharedRows, tmp_path: Path) -> None:
    config = StaticConfig(vocab_size=len(shared.owners), num_labels=3, hidden_size=8, ngram_rows=64, ngram_width=4)
    student = StaticForSequenceClassification(config)
    read_places(student, shared)
    student.save_pretrained(tmp_path)
    ids = np.arange(4, 24).reshape(2, 10)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(logits(again, ids), logits(student, ids))
    assert again.embedder.places.tolist() == shared.places.tolist()
