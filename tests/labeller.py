"""A process that asks an endpoint for many answers, to be killed or interrupted: `distill ask` on the real program.

    python tests/labeller.py ask URL FOLDER ROWS [--patience SECONDS]

Answers go to FOLDER/paid.sqlite. Each key that was acknowledged as committed is appended to FOLDER/acknowledged by a
plain write, which survives a kill of the process.
"""

import os
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from distill.cli import main
from distill.commands import app
from teacher.completion import CompletionRequest
from teacher.endpoint import Endpoint
from teacher.paid import PaidAnswers
from teacher.spec import LlmApiSpec

if TYPE_CHECKING:
    from tests.fault_server import FaultServer

MODEL = "tiny"
USD_PER_TOKEN = 1e-6
PROMPT = "A: card arrival, B: lost card, C: exchange rate. Answer with one letter.\n-----\n{}\n-----\nThe letter:"


class WitnessedAnswers(PaidAnswers):
    """Paid answers that tell a file of every key whose commit was acknowledged."""

    def __init__(self, path: Path) -> None:
        """Open both files."""
        super().__init__(path)
        self._witness = os.open(path.with_name("acknowledged"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def record_soon(
        self, key: str, content: Mapping[str, Any], cost_usd: float, *, model: str = "", reserved_usd: float = 0.0
    ) -> "Future[None]":
        """Do what it does and note the key as soon as it is done."""
        done = super().record_soon(key, content, cost_usd, model=model, reserved_usd=reserved_usd)
        done.add_done_callback(lambda each: os.write(self._witness, f"{key}\n".encode()) if not each.exception() else 0)
        return done


def requests(rows: int, first: int = 0) -> list[CompletionRequest]:
    """Return as many different requests, each for one token with its 20 likeliest alternatives."""
    texts = (f"My card {number} has not come, where is it?" for number in range(first, first + rows))
    return [
        CompletionRequest(({"role": "user", "content": PROMPT.format(text)},), max_tokens=1, top_logprobs=20)
        for text in texts
    ]


def mock_spec(url: str, folder: Path, **changes: Any) -> LlmApiSpec:
    """Return the spec that asks the fault server at `url`, with a table of its prices in `folder`."""
    price, prices = USD_PER_TOKEN * 1e6, folder / "prices.yaml"
    row = f"{{prompt: {price}, completion: {price}, batch_discount: 0.5}}"
    prices.write_text(f"models:\n  {MODEL}: {row}\n", encoding="utf-8")
    return LlmApiSpec(**{"base_url": url, "model": MODEL, "key_env": None, "prices": str(prices), **changes})


def open_endpoint(server: "FaultServer", paid: PaidAnswers, **changes: Any) -> Endpoint:
    """Return an endpoint for the server that waits hardly at all between two tries."""
    return Endpoint(mock_spec(server.url, paid.path.parent, **changes), paid, patience_seconds=0.001)


@click.command()
@click.argument("url")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("rows", type=int)
@click.option("--patience", type=float, default=0.05)
def ask(url: str, folder: Path, rows: int, patience: float) -> None:
    """Ask for the answers that the file in the folder lacks."""
    with WitnessedAnswers(folder / "paid.sqlite") as paid:
        Endpoint(mock_spec(url, folder), paid, patience_seconds=patience).complete(requests(rows))


if __name__ == "__main__":
    app.add_command(ask)
    main()
