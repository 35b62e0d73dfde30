"""Facts about an embedding that holds the rows of the tokens in use alone while an encoder is trained."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from teacher import encoder as module
from teacher.encoder import Gold, fine_tune, load_tokenizer
from teacher.rows_in_use import RowsInUse, rows_in_use
from teacher.spec import EncoderSpec

READ = np.array([0, 2, 3, 70, 90], np.int32)


@pytest.fixture
def encoder(tiny_encoder: Path) -> PreTrainedModel:
    """The untrained tiny encoder, without dropout."""
    return AutoModel.from_pretrained(tiny_encoder).eval()


def embed(encoder: PreTrainedModel, ids: list[int]) -> Tensor:
    with torch.no_grad():
        hidden: Tensor = encoder(input_ids=torch.tensor([ids])).last_hidden_state
    return hidden


def trained(tiny_encoder: Path, gold: Gold, folder: Path) -> Tensor:
    spec = EncoderSpec(model=str(tiny_encoder), epochs=2, soup=1, max_tokens=32)
    lesson = [example.text for example in gold.train], gold.targets(gold.train)
    model = fine_tune(load_tokenizer(tiny_encoder), spec, gold, lesson, folder)
    weight: Tensor = model.encoder.get_input_embeddings().weight
    return weight.detach()


def test_answers_about_tokens_in_use_are_the_same(encoder: PreTrainedModel) -> None:
    wanted = embed(encoder, [2, 70, 90, 3, 0])
    with rows_in_use(encoder, READ):
        assert torch.equal(embed(encoder, [2, 70, 90, 3, 0]), wanted)


def test_only_rows_in_use_are_held(encoder: PreTrainedModel) -> None:
    with rows_in_use(encoder, READ):
        assert encoder.get_input_embeddings().rows.weight.shape == (5, 16)
        assert len(list(encoder.get_input_embeddings().parameters())) == 1


def test_a_token_that_is_not_in_use_is_refused(encoder: PreTrainedModel) -> None:
    with rows_in_use(encoder, READ), pytest.raises(IndexError):
        embed(encoder, [2, 71, 3])


def test_what_rows_have_learned_is_there_afterwards_and_the_others_stay(encoder: PreTrainedModel) -> None:
    before = encoder.get_input_embeddings().weight.detach().clone()
    with rows_in_use(encoder, READ), torch.no_grad():
        encoder.get_input_embeddings().rows.weight += 1
    after = encoder.get_input_embeddings().weight.detach()
    moved = torch.zeros(len(before), 1)
    moved[torch.from_numpy(READ).long()] = 1
    assert torch.equal(after, before + moved)


def test_an_embedding_that_does_more_than_look_up_stays(encoder: PreTrainedModel) -> None:
    class Scaled(nn.Embedding):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    scaled = Scaled(300, 16)
    encoder.set_input_embeddings(scaled)
    with rows_in_use(encoder, READ):
        assert encoder.get_input_embeddings() is scaled


def test_a_teacher_is_trained_with_the_rows_of_its_texts_alone(
    tiny_encoder: Path, gold: Gold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = []
    real = RowsInUse.__init__

    def watched(self: RowsInUse, *arguments: Any) -> None:
        real(self, *arguments)
        held.append(self.rows.num_embeddings)

    monkeypatch.setattr(RowsInUse, "__init__", watched)
    before = AutoModel.from_pretrained(tiny_encoder).get_input_embeddings().weight.detach()
    after = trained(tiny_encoder, gold, tmp_path)
    changed = int((after != before).any(dim=1).sum())
    assert 20 < changed < held[0] < len(before)


def test_a_teacher_learns_what_it_learns_with_all_rows(
    tiny_encoder: Path, gold: Gold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = trained(tiny_encoder, gold, tmp_path / "some")
    monkeypatch.setattr(module, "rows_in_use", lambda *_: nullcontext())
    wanted = trained(tiny_encoder, gold, tmp_path / "all")
    np.testing.assert_allclose(found, wanted, atol=2e-4)
