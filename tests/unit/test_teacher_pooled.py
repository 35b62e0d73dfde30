from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from teacher.errors import TeacherError
from teacher.finetune import pad
from teacher.pooled import PooledClassifier, PooledEncoder, load_encoder, load_pooled

ROWS = [np.array(ids, np.int32) for ids in ([2, 30, 41, 3], [2, 55, 3], [2, 17, 18, 19, 20, 21, 3])]


def embed(model: PooledEncoder, rows: list[np.ndarray]) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**pad(rows, 0))["logits"]


def test_a_pooled_text_is_the_mean_over_its_tokens(tiny_encoder: Path) -> None:
    encoder = load_encoder(str(tiny_encoder)).eval()
    with torch.no_grad():
        hidden = encoder(input_ids=torch.tensor([ROWS[0].tolist()])).last_hidden_state[0]
        pooled = PooledEncoder(encoder).pool(**pad([ROWS[0]], 0))[0]
    torch.testing.assert_close(pooled, hidden.mean(dim=0))


def test_padding_does_not_change_an_embedding(tiny_encoder: Path) -> None:
    model = PooledEncoder(load_encoder(str(tiny_encoder)))
    for weight in model.parameters():
        weight.data *= 3  # as initialised, every text would look the same
    alone = torch.cat([embed(model, [row]) for row in ROWS])
    torch.testing.assert_close(embed(model, ROWS), alone, atol=1e-5, rtol=1e-5)
    assert alone.std(dim=0).mean() > 0.01


def test_an_embedding_has_length_one(tiny_encoder: Path) -> None:
    lengths = embed(PooledEncoder(load_encoder(str(tiny_encoder))), ROWS).norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones(3))


@pytest.mark.parametrize("unit_length", [True, False])
def test_a_saved_classifier_answers_the_same(tiny_encoder: Path, tmp_path: Path, unit_length: bool) -> None:
    torch.manual_seed(3)
    model = PooledClassifier(load_encoder(str(tiny_encoder)), 5, unit_length=unit_length)
    model.save(tmp_path)
    torch.testing.assert_close(embed(load_pooled(tmp_path, unit_length=unit_length), ROWS), embed(model, ROWS))


def test_unit_length_changes_what_the_head_reads(tiny_encoder: Path, tmp_path: Path) -> None:
    PooledClassifier(load_encoder(str(tiny_encoder)), 5).save(tmp_path)
    plain, scaled = (embed(load_pooled(tmp_path, unit_length=flag), ROWS) for flag in (False, True))
    assert not torch.allclose(plain, scaled)


def test_a_saved_classifier_is_a_checkpoint_a_student_can_copy(tiny_encoder: Path, tmp_path: Path) -> None:
    model = PooledClassifier(load_encoder(str(tiny_encoder)), 5)
    model.save(tmp_path)
    opened = AutoModelForSequenceClassification.from_pretrained(tmp_path).base_model.state_dict()
    assert all(
        torch.equal(tensor, opened[name]) for name, tensor in model.encoder.state_dict().items() if name in opened
    )
    assert "encoder.layer.3.output.dense.weight" in opened


def test_a_folder_without_a_model_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=f"cannot load {tmp_path}"):
        load_encoder(str(tmp_path))
