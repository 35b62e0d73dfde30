"""An encoder whose mean-pooled last layer feeds a linear head: what few gold labels train best.

The head reads the average of the real tokens, as sentence encoders are pre-trained to be read. Saved as the
encoder's own Hugging Face checkpoint beside `head.safetensors`, so a student can copy layers from it.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, PreTrainedModel

from teacher.errors import TeacherError

HEAD = "head.safetensors"


class PooledEncoder(torch.nn.Module):
    """Unit-length mean of the last hidden states, given out as `logits` (batch, hidden)."""

    base_model_prefix = "encoder"

    def __init__(self, encoder: PreTrainedModel) -> None:
        """Take the encoder as it is."""
        super().__init__()
        self.encoder = encoder
        self.num_labels = int(encoder.config.hidden_size)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return `logits`."""
        return {"logits": torch.nn.functional.normalize(self.pool(input_ids, attention_mask), dim=-1)}

    def pool(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the mean hidden state over real tokens, float32 (batch, hidden)."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.float()
        mask = attention_mask.unsqueeze(-1)
        mean: torch.Tensor = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        return mean


class PooledClassifier(PooledEncoder):
    """A linear head over the mean; with `unit_length`, over the mean scaled to length 1."""

    def __init__(self, encoder: PreTrainedModel, labels: int, *, unit_length: bool = False) -> None:
        """Start with a fresh head for `labels` outputs."""
        super().__init__(encoder)
        self.num_labels = labels
        self.unit_length = unit_length
        self.dropout = torch.nn.Dropout(0.1)
        self.head = torch.nn.Linear(encoder.config.hidden_size, labels)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, output_embeddings: bool = False
    ) -> dict[str, torch.Tensor]:
        """Return `logits` (batch, labels) and, where asked for, what `PooledEncoder` gives as `embeddings`."""
        pooled = self.pool(input_ids, attention_mask)
        unit = torch.nn.functional.normalize(pooled, dim=-1)
        logits = self.head(self.dropout(unit if self.unit_length else pooled))
        return {"logits": logits, "embeddings": unit} if output_embeddings else {"logits": logits}

    def save(self, directory: Path) -> None:
        """Write the encoder's checkpoint and the head into `directory`."""
        self.encoder.save_pretrained(directory)
        save_file(
            {name: tensor.detach().contiguous() for name, tensor in self.head.state_dict().items()}, directory / HEAD
        )


def load_encoder(model: str) -> PreTrainedModel:
    """Load an encoder without a head; raise TeacherError when there is none."""
    try:
        # On a CPU the plain attention is the faster one in training, and no slower on short texts.
        return AutoModel.from_pretrained(model, dtype=torch.float32, attn_implementation="eager")
    except (OSError, ValueError) as error:
        raise TeacherError(f"cannot load {model}: {str(error).splitlines()[0]}") from error


def load_pooled(directory: Path, *, unit_length: bool) -> PooledClassifier:
    """Load what `PooledClassifier.save` wrote."""
    weights = load_file(directory / HEAD)
    classifier = PooledClassifier(load_encoder(str(directory)), len(weights["bias"]), unit_length=unit_length)
    classifier.head.load_state_dict(weights)
    return classifier
