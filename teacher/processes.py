"""Which process of a distributed run this is; loads torch only when there is more than one."""

import os
from datetime import timedelta


def process_count() -> int:
    """Return how many processes `accelerate launch` started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Say whether this process writes files and speaks to the person."""
    return int(os.environ.get("RANK", "0")) == 0


def wait_for_all() -> None:
    """Return once every process has come here."""
    if process_count() > 1:
        from accelerate import PartialState

        # The first process may label for hours while the others wait here.
        PartialState(cpu=_on_cpu(), timeout=timedelta(days=7)).wait_for_everyone()


def _on_cpu() -> bool:
    import torch

    return not torch.cuda.is_available()
