"""Which process of a distributed run this is; loads torch only when there is more than one."""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

T = TypeVar("T")


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


def from_first(make: Callable[[], T]) -> T:
    """Return, in every process, what `make` gives in the first; the others wait for it and call nothing."""
    if process_count() == 1:
        return make()
    from accelerate.utils import broadcast_object_list

    made: list[Any] = [make() if is_first_process() else None]
    wait_for_all()
    given: T = broadcast_object_list(made)[0]
    return given


def _on_cpu() -> bool:
    import torch

    return not torch.cuda.is_available()
