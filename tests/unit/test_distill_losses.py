from collections.abc import Callable

import pytest
import torch

from distill.losses import (
    DEFAULT_LOSS,
    SOFT_LOSSES,
    centred_mse,
    distillation_objective,
    hidden_loss,
    hint_loss,
    logit_mse,
    relation_loss,
    soft_bce,
    soft_cross_entropy,
    tempered_kl,
)
from teacher.task import TaskKind

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, -2.0]])
PROBS = torch.tensor([[0.7, 0.1, 0.2], [0.2, 0.5, 0.3]])
SINGLE, MULTI = TaskKind.SINGLE_LABEL, TaskKind.MULTI_LABEL


def batch(has_gold: list[bool]) -> dict[str, torch.Tensor]:
    targets = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    return {"soft": PROBS, "targets": targets, "has_gold": torch.tensor(has_gold)}


def test_a_constant_added_to_all_logits_of_a_text_changes_no_centred_loss() -> None:
    shifted = LOGITS + torch.tensor([[5.0], [-3.0]])
    torch.testing.assert_close(centred_mse(shifted, PROBS, 1.0), centred_mse(LOGITS, PROBS, 1.0))


def test_centred_logits_are_compared_with_centred_log_probabilities() -> None:
    wanted = sum(
        ((row - row.mean()) - (probs.log() - probs.log().mean())).pow(2).sum()
        for row, probs in zip(LOGITS, PROBS, strict=True)
    )
    torch.testing.assert_close(centred_mse(LOGITS, PROBS, 1.0), wanted / 6)


@pytest.mark.parametrize("loss", [centred_mse, tempered_kl])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_a_student_that_gives_the_teachers_answer_has_no_loss(
    loss: Callable[..., torch.Tensor], temperature: float
) -> None:
    assert loss(PROBS.log() + 7, PROBS, temperature).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_the_divergence_is_that_of_the_definition_times_the_temperature_squared(temperature: float) -> None:
    teacher = PROBS ** (1 / temperature)
    teacher = teacher / teacher.sum(dim=1, keepdim=True)
    student = torch.exp(LOGITS / temperature)
    student = student / student.sum(dim=1, keepdim=True)
    divergence = (teacher * (teacher / student).log()).sum(dim=1).mean()
    torch.testing.assert_close(tempered_kl(LOGITS, PROBS, temperature), temperature**2 * divergence)


def test_gradients_of_the_divergence_stay_comparable_over_temperatures() -> None:
    sizes = []
    for temperature in (10.0, 20.0):
        logits = LOGITS.clone().requires_grad_()
        tempered_kl(logits, PROBS, temperature).backward()
        assert logits.grad is not None
        sizes.append(logits.grad.norm().item())
    assert sizes[1] == pytest.approx(sizes[0], rel=0.1)


@pytest.mark.parametrize("kind", list(TaskKind))
def test_a_probability_of_zero_or_one_gives_a_finite_loss_and_gradient(kind: TaskKind) -> None:
    for loss in SOFT_LOSSES[kind].values():
        logits = LOGITS.clone().requires_grad_()
        found = loss(logits, torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), 2.0)
        found.backward()
        assert torch.isfinite(found)
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()


def test_soft_cross_entropy_is_that_of_the_definition() -> None:
    wanted = -(PROBS * torch.log_softmax(LOGITS, dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(soft_cross_entropy(LOGITS, PROBS, 9.0), wanted)


def test_soft_binary_cross_entropy_is_that_of_the_definition() -> None:
    given = torch.sigmoid(LOGITS)
    wanted = -(PROBS * given.log() + (1 - PROBS) * (1 - given).log()).sum(dim=1).mean()
    torch.testing.assert_close(soft_bce(LOGITS, PROBS, 9.0), wanted)


def test_multi_label_logits_are_compared_with_log_odds() -> None:
    wanted = (LOGITS - (PROBS / (1 - PROBS)).log()).pow(2).mean()
    torch.testing.assert_close(logit_mse(LOGITS, PROBS, 1.0), wanted)


def test_without_gold_the_soft_loss_stands_alone() -> None:
    soft = centred_mse(LOGITS, PROBS, 2.0)
    for weight, has_gold in ((0.0, [True, True]), (0.7, [False, False])):
        objective = distillation_objective(SINGLE, "mse", temperature=2.0, gold_weight=weight)
        torch.testing.assert_close(objective(LOGITS, batch(has_gold)), soft)


def test_gold_rows_give_their_share_of_the_loss_to_gold() -> None:
    objective = distillation_objective(SINGLE, "kl", temperature=2.0, gold_weight=0.6)
    soft = tempered_kl(LOGITS, PROBS, 2.0)
    first = -torch.log_softmax(LOGITS[0], dim=0)[1]
    torch.testing.assert_close(objective(LOGITS, batch([True, False])), 0.7 * soft + 0.3 * first)
    both = (first - torch.log_softmax(LOGITS[1], dim=0)[0]) / 2
    torch.testing.assert_close(objective(LOGITS, batch([True, True])), 0.4 * soft + 0.6 * both)


def test_all_weight_on_gold_leaves_only_the_gold_loss() -> None:
    objective = distillation_objective(MULTI, None, temperature=2.0, gold_weight=1.0)
    rows = batch([True, True])
    cells = torch.nn.functional.binary_cross_entropy_with_logits(LOGITS, rows["targets"], reduction="none")
    wanted = cells.sum(dim=1).mean()
    torch.testing.assert_close(objective(LOGITS, rows), wanted)


@pytest.mark.parametrize(("kind", "loss"), [(SINGLE, tempered_kl), (MULTI, soft_bce)])
def test_each_kind_of_task_has_a_loss_of_its_own(kind: TaskKind, loss: Callable[..., torch.Tensor]) -> None:
    objective = distillation_objective(kind, None, temperature=1.0, gold_weight=0.0)
    torch.testing.assert_close(objective(LOGITS, batch([False, False])), loss(LOGITS, PROBS, 1.0))
    assert DEFAULT_LOSS[kind] in SOFT_LOSSES[kind]


def test_relations_are_compared_across_different_widths() -> None:
    student = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    teacher = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    half = 0.5**0.5
    wanted = 2 * ((0 - 1) ** 2 + half**2 + half**2) / 9
    assert relation_loss(student, teacher).item() == pytest.approx(wanted, rel=1e-5)


def test_relations_do_not_see_rotation_scale_or_a_larger_space() -> None:
    torch.manual_seed(0)
    states = torch.randn(6, 4)
    rotation, _ = torch.linalg.qr(torch.randn(7, 7))
    assert relation_loss(states, 3 * states @ rotation[:4]).item() == pytest.approx(0, abs=1e-10)
    assert relation_loss(states, torch.randn(6, 7)).item() > 0.01


def test_sentence_states_of_one_width_are_compared_by_direction() -> None:
    student, teacher = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [1.0, 1.0]])
    assert hidden_loss(student, teacher).item() == pytest.approx((0 + 1 - 0.5**0.5) / 2, rel=1e-5)
    assert hidden_loss(student, 5 * student).item() == pytest.approx(0, abs=1e-6)


def test_sentence_states_of_different_widths_are_compared_by_their_relations() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 3), torch.randn(5, 7)
    torch.testing.assert_close(hidden_loss(student, teacher), relation_loss(student, teacher))


def test_hints_are_compared_in_parts_of_their_variance_where_tokens_are() -> None:
    torch.manual_seed(0)
    teacher, is_token = torch.randn(2, 3, 5), torch.tensor([[1, 1, 1], [1, 0, 0]])
    student = teacher.clone()
    student[1, 1:] += 100  # padding
    assert hint_loss(student, teacher, is_token).item() == 0
    known = teacher[is_token.bool()]
    wanted = ((known - 0.5) ** 2).mean() / known.var()
    torch.testing.assert_close(hint_loss(torch.full_like(teacher, 0.5), teacher, is_token), wanted)
    torch.testing.assert_close(hint_loss(7 * torch.full_like(teacher, 0.5), 7 * teacher, is_token), wanted)
