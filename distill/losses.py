"""What it means for a student to agree with its teacher: losses between logits and soft labels.

A soft label is a probability at temperature 1. Each task kind has its own row in `SOFT_LOSSES`; a loss takes
student logits (batch, labels), teacher probabilities (batch, labels) and a temperature, and returns a scalar.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from teacher.finetune import Objective, hard_label_objective
from teacher.task import TaskKind

_SMALLEST = 1e-9  # probabilities below carry no information in float32

SoftLoss = Callable[[Tensor, Tensor, float], Tensor]


def centred_mse(logits: Tensor, probs: Tensor, temperature: float) -> Tensor:
    """Return the squared error between mean-centred student logits and mean-centred teacher log-probabilities.

    Softmax ignores a constant added to all logits, so both sides are centred over the labels first (Ba &
    Caruana 2014, "Do Deep Nets Really Need to be Deep?", on logits). `temperature` has no effect.
    """
    wanted = probs.clamp_min(_SMALLEST).log()
    wanted = wanted - wanted.mean(dim=-1, keepdim=True)
    return functional.mse_loss(logits - logits.mean(dim=-1, keepdim=True), wanted)


def tempered_kl(logits: Tensor, probs: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(teacher_T || student_T), mean over the batch (Hinton et al. 2015).

    The teacher's probabilities are re-tempered as softmax(log p / T); T^2 keeps gradients comparable over T.
    """
    wanted = torch.log_softmax(probs.clamp_min(_SMALLEST).log() / temperature, dim=-1)
    given = torch.log_softmax(logits / temperature, dim=-1)
    return temperature**2 * functional.kl_div(given, wanted, reduction="batchmean", log_target=True)


def soft_cross_entropy(logits: Tensor, probs: Tensor, temperature: float) -> Tensor:
    """Return the cross-entropy of the student under the teacher's probabilities; `temperature` has no effect."""
    return functional.cross_entropy(logits, probs)


def soft_bce(logits: Tensor, probs: Tensor, temperature: float) -> Tensor:
    """Return the binary cross-entropy against soft targets, summed over labels, mean over the batch; no temperature."""
    return functional.binary_cross_entropy_with_logits(logits, probs, reduction="sum") / len(logits)


def logit_mse(logits: Tensor, probs: Tensor, temperature: float) -> Tensor:
    """Return the squared error between student logits and the teacher's log-odds, mean over cells."""
    return functional.mse_loss(logits, torch.logit(probs, eps=1e-6))


SOFT_LOSSES: Mapping[TaskKind, Mapping[str, SoftLoss]] = {
    TaskKind.SINGLE_LABEL: {"mse": centred_mse, "kl": tempered_kl, "cross_entropy": soft_cross_entropy},
    TaskKind.MULTI_LABEL: {"bce": soft_bce, "mse": logit_mse},
}
DEFAULT_LOSS = {TaskKind.SINGLE_LABEL: "kl", TaskKind.MULTI_LABEL: "bce"}


def distillation_objective(kind: TaskKind, loss: str | None, *, temperature: float, gold_weight: float) -> Objective:
    """Return an objective over batches with `soft` (batch, C), `targets` (batch, C) and `has_gold` (batch,).

    Rows with a gold label give the share `gold_weight` of their loss to it; rows without take the soft label alone.
    """
    soft_loss = SOFT_LOSSES[kind][loss or DEFAULT_LOSS[kind]]
    hard_loss = hard_label_objective(kind)

    def objective(logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        soft = soft_loss(logits, batch["soft"], temperature)
        labelled = batch["has_gold"]
        if gold_weight == 0 or not labelled.any():
            return soft
        hard = hard_loss(logits[labelled], {"targets": batch["targets"][labelled]})
        share = gold_weight * labelled.float().mean()
        return (1 - share) * soft + share * hard

    return objective


def hidden_loss(student_hidden: Tensor, teacher_hidden: Tensor) -> Tensor:
    """Return how far a student's sentence states (batch, width) point away from the teacher's, 0 when they agree.

    Of equal width: 1 minus their cosine similarity, mean over the batch. Of different width, where directions
    cannot be compared: `relation_loss`.
    """
    if student_hidden.shape[-1] != teacher_hidden.shape[-1]:
        return relation_loss(student_hidden, teacher_hidden)
    return 1 - functional.cosine_similarity(student_hidden, teacher_hidden, dim=-1).mean()


def hint_loss(student_states: Tensor, teacher_states: Tensor, is_token: Tensor) -> Tensor:
    """Return the squared error between hidden states (batch, sequence, width) over the variance of the teacher's.

    Only where `is_token` (batch, sequence) is not 0: 0 when they agree, about 1 for one that always says the same.
    """
    chosen = is_token.bool()
    student, teacher = student_states[chosen].float(), teacher_states[chosen].float()
    return functional.mse_loss(student, teacher) / teacher.var().clamp_min(_SMALLEST)


def relation_loss(student_hidden: Tensor, teacher_hidden: Tensor) -> Tensor:
    """Return the squared error between the cosine similarities inside a batch, on both sides (batch, width).

    Widths may differ. Tung & Mori 2019, "Similarity-Preserving Knowledge Distillation", with cosine similarity.
    """
    student = functional.normalize(student_hidden, dim=-1)
    teacher = functional.normalize(teacher_hidden, dim=-1)
    return functional.mse_loss(student @ student.T, teacher @ teacher.T)
