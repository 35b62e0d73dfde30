"""A foreign server with a real model: `transformers serve` on the loopback, and a tiny LM that learned to classify.

It gives no log-probabilities and one answer a call, so votes are what is asked for here.
"""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from teacher.encoder import Gold
from teacher.errors import EndpointError
from teacher.example import Example, content_id
from teacher.label import label_corpus
from teacher.llm_api import LlmApiTeacher, fit_llm_api
from teacher.paid import PaidAnswers
from teacher.prompter import Prompter, save_prompt
from teacher.soft_labels import LabelStore, read_store
from teacher.spec import LlmApiSpec, PromptSpec
from teacher.task import Task, TaskKind
from tests.conftest import LABELS, corpus_rows

TASK = Task(TaskKind.SINGLE_LABEL, LABELS)
ROWS = [Example(content_id(text), text, (label,)) for text, label in corpus_rows()]
DEV, POOL = ROWS[3::50], ROWS[8::30]
GOLD = Gold(TASK, ROWS[::2], DEV, lambda logits, targets: 0.0)
TEMPLATE = "{labels}\n{text}"
CHAT = (
    "{% for message in messages %}<|user|> {{ message['content'] }} <|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
PATIENCE_SECONDS = 120.0  # for a start that takes ten on an idle machine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a prompt template and a table of prices."""
    folder = tmp_path_factory.mktemp("endpoint")
    (folder / "template.txt").write_text(TEMPLATE, encoding="utf-8")
    (folder / "prices.yaml").write_text("models: {'*': {prompt: 0, completion: 1}}", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def language_model(folder: Path) -> Path:
    """Return a folder with a Llama of some 40,000 parameters that answers the prompts of this test with codes."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    prompts, answers = _lessons(folder)
    words = Tokenizer(models.WordLevel(unk_token="<|unknown|>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["<|unknown|>", "<|end|>", "<|user|>", "<|assistant|>"]
    words.train_from_iterator([*prompts, *answers], trainers.WordLevelTrainer(special_tokens=special))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<|end|>", pad_token="<|end|>", unk_token="<|unknown|>", chat_template=CHAT
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=256,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
            pad_token_id=tokenizer.eos_token_id,
        )
    )
    _teach(model, tokenizer, prompts, answers)
    model.generation_config.do_sample = True
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder / "model"


def _lessons(folder: Path) -> tuple[list[str], list[str]]:
    """Return a chat for each gold row, as the server spells it, and the code that is right."""
    from teacher.answers import make_way

    save_prompt(PromptSpec(template=str(folder / "template.txt")), GOLD, folder)
    prompter = Prompter(TASK, GOLD.seed, folder)
    way = make_way("votes", TASK.kind, prompter.book, LlmApiSpec(base_url="", model=""))
    groups = prompter.calls([example.text for example in GOLD.train], way)[0]
    chats = [f"<|user|> {group[0].messages[0]['content']} <|end|><|assistant|>" for group in groups]
    codes = dict(zip(LABELS, prompter.book.codes, strict=True))
    return chats, [codes[example.labels[0]] for example in GOLD.train if example.labels]


def _teach(model: "object", tokenizer: "object", prompts: list[str], answers: list[str]) -> None:
    import torch

    rows = [
        tokenizer(f"{prompt} {answer} <|end|>")["input_ids"] for prompt, answer in zip(prompts, answers, strict=True)
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    generator = np.random.default_rng(0)
    for _ in range(120):
        chosen = [rows[at] for at in generator.choice(len(rows), 24)]
        width = max(map(len, chosen))
        # Padded in front, so that the two tokens to learn stand at the end of every row.
        ids = torch.tensor([[tokenizer.eos_token_id] * (width - len(row)) + row for row in chosen])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in chosen])
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        logits = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, -3:-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, -2:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.fixture(scope="module")
def address(language_model: Path, folder: Path) -> Iterator[str]:
    """Return the base address of `transformers serve` with the tiny model, which runs until the tests are through."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(language_model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--default-seed", "0"]
    log = folder / "server.log"
    with log.open("w") as file:
        server = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        _wait_until_up(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(timeout=30)


def _wait_until_up(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5)
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"transformers serve did not start: {log.read_text()[-2000:]}")


@pytest.fixture
def spec(address: str, language_model: Path, folder: Path) -> LlmApiSpec:
    """Return a teacher that asks the server, three samples a text."""
    return LlmApiSpec(
        base_url=address,
        model=str(language_model),
        key_env=None,
        prices=str(folder / "prices.yaml"),
        prompt=PromptSpec(template=str(folder / "template.txt")),
        samples=3,
        sampling_temperature=0.5,
        concurrency=4,
        attempts=2,
    )


def test_a_corpus_is_labelled_through_a_real_server_and_its_answers_are_kept(spec: LlmApiSpec, tmp_path: Path) -> None:
    folder = tmp_path / "teacher"
    folder.mkdir()
    with PaidAnswers(tmp_path / "answers.sqlite") as paid:
        fit_llm_api(spec, GOLD, folder, paid)
        teacher = LlmApiTeacher(folder, paid)
        store = LabelStore(tmp_path / "labels", TASK, teacher.fingerprint)
        label_corpus(teacher, [POOL], store, shard_rows=8, progress=lambda rows: None)
        store.finish(corpus="corpus")
        spent = paid.spent_usd
        again = teacher.label([example.text for example in POOL])
        assert paid.spent_usd == spent > 0
    assert teacher.method == "votes"
    probs = read_store(tmp_path / "labels").probs([example.id for example in POOL])
    right = TASK.targets([example.labels or () for example in POOL]).argmax(axis=1)
    assert (probs.argmax(axis=1) == right).mean() >= 0.9
    np.testing.assert_allclose(again.probs, probs, rtol=1e-5)


def test_a_model_that_the_server_does_not_hold_is_one_line(spec: LlmApiSpec, tmp_path: Path) -> None:
    stranger = spec.model_copy(update={"model": "no/such-model"})
    with PaidAnswers(tmp_path / "answers.sqlite") as paid, pytest.raises(EndpointError) as error:
        fit_llm_api(stranger, GOLD, tmp_path, paid)
    assert "\n" not in str(error.value)
    assert "no/such-model" in str(error.value)
