"""Facts about the search for a prompt: it finds the one that works, says how sure that is, and keeps to its budget."""

import hashlib
import json
import math
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from distill.cli import run
from distill.config import ConfigError, load_config
from distill.errors import InputError
from distill.progress import SilentReporter
from distill.prompt_search import rungs
from distill.prompt_trials import search_config
from teacher.errors import BudgetError, TeacherError
from teacher.paid import PaidAnswers
from tests.conftest import LABELS, corpus_rows
from tests.fault_server import FaultServer

TRUTH = dict(corpus_rows())
GOOD = "### system\nBe careful.\n{labels}\n### user\n{examples}\n{text}\n{answer}\n"


class PickyServer(FaultServer):
    """Knows every label, and says the right one to those who ask it to be careful; to others in one case of two."""

    def _reply(self, body: Mapping[str, Any]) -> dict[str, Any]:
        prompt = "\n".join(message["content"] for message in body["messages"])
        text = prompt.rpartition("<text>\n")[2].partition("\n</text>")[0]
        codes = {name: code for code, name in re.findall(r"^([A-Z]+): (\w+)", prompt, re.MULTILINE)}
        right = TRUTH[text]
        if "Be careful" not in prompt and int(hashlib.sha256(text.encode()).hexdigest(), 16) % 2:
            right = LABELS[LABELS.index(right) - 1]
        reply = super()._reply(body)
        shares = {codes[name]: 0.9 if name == right else 0.05 for name in LABELS}
        ranked = sorted(shares, key=shares.__getitem__, reverse=True)
        top = [{"token": code, "logprob": math.log(shares[code])} for code in ranked]
        choice = reply["choices"][0]
        choice["message"]["content"] = ranked[0]
        choice["logprobs"] = {"content": [top[0] | {"top_logprobs": top}]}
        return reply


@pytest.fixture
def server() -> Iterator[PickyServer]:
    """Return a running server that a careful prompt does better with."""
    running = PickyServer()
    running.start()
    yield running
    running.stop()


@pytest.fixture
def config(server: PickyServer, write_corpus: Callable[[], Path], tiny_encoder: Path) -> Path:
    """Return a config whose teacher is the server's model, beside a better template than the config's."""
    folder = write_corpus()
    (folder / "prices.yaml").write_text("models: {tiny: {prompt: 1, completion: 1}}", encoding="utf-8")
    (folder / "careful.txt").write_text(GOOD, encoding="utf-8")
    teacher = {"kind": "llm_api", "base_url": server.url, "model": "tiny", "key_env": None, "prices": "prices.yaml"}
    content = {
        "name": "prompts",
        "data": {"unlabeled": ["pool.csv"], "gold": "gold.csv", "dev": "dev.csv", "test": "test.csv"},
        "teacher": teacher,
        "student": {"init": str(tiny_encoder)},
    }
    path = folder / "prompts.yaml"
    path.write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML
    return path


@pytest.fixture(scope="module")
def tiny_llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a random Llama of one layer that reads bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-llm")
    letters = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({letter: at for at, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(letters), max_position_embeddings=4096, **sizes)).save_pretrained(
        folder
    )
    return folder


def search(config: Path, *tries: str, rows: int = 60, overrides: tuple[str, ...] = (), **options: Any) -> list[str]:
    loaded = load_config(config, overrides)
    return search_config(loaded, tries, rows, runs=config.parent / "runs", reporter=SilentReporter(), **options)


def table(lines: list[str]) -> list[list[str]]:
    return [line.split() for line in lines if re.match(r" +\d+ ", line)]


def test_the_better_template_wins_and_its_overrides_load(config: Path) -> None:
    lines = search(config, "template=null,careful.txt", "examples=0,2", rows=40)
    best, *others = table(lines)
    assert best[0] == "40"
    assert float(best[1]) == 1.0
    assert all(float(row[1]) < 0.8 for row in others if "template=null" in row)
    overrides = shlex.split(lines[-1].removeprefix("winner: "))
    assert "teacher.prompt.template=careful.txt" in overrides
    prompt = load_config(config, overrides).config.teacher.prompt  # type: ignore[union-attr]
    assert prompt.template == "careful.txt"


def test_the_score_of_a_trial_is_how_often_it_is_right_with_its_interval(config: Path) -> None:
    ((rows, score, low, high, *_),) = table(search(config, "examples=0", rows=90))
    assert int(rows) == 90
    dev = [text for text, _ in corpus_rows()[1::5]]
    right = sum(int(hashlib.sha256(text.encode()).hexdigest(), 16) % 2 == 0 for text in dev) / len(dev)
    assert float(score) == pytest.approx(right, abs=1e-3)
    half = 1.96 * math.sqrt(right * (1 - right) / 90)
    assert float(high.strip("]")) - float(low.strip("[,")) == pytest.approx(2 * half, rel=0.15)


def test_better_prompts_answer_more_rows_and_no_answer_is_paid_twice(config: Path, server: PickyServer) -> None:
    lines = search(config, "template=null,careful.txt", "examples=1,2", rows=64)
    rows = sorted(int(row[0]) for row in table(lines))
    assert rows == [32, 32, 64, 64]
    assert sum(rows) == server.counts()["paid"]
    assert server.counts()["most_paid"] == 1
    first = table(lines)[0]
    assert "template=careful.txt" in first
    assert search(config, "template=null,careful.txt", "examples=1,2", rows=64)[:5] == lines[:5]
    assert server.counts()["paid"] == sum(rows)


def test_a_lead_within_the_noise_is_called_so_and_another_is_not(config: Path) -> None:
    even = search(config, "examples=1,2", rows=40)
    assert "the first leads the second by 0.0 points [+0.0, +0.0], which is within the noise" in even
    uneven = search(config, "template=null,careful.txt", "examples=0", rows=40)
    (lead,) = [line for line in uneven if "leads the second" in line]
    assert "noise" not in lead


def test_prices_stand_beside_every_prompt(config: Path, server: PickyServer) -> None:
    lines = search(config, "examples=0,8", rows=16)
    none, eight = sorted(table(lines), key=lambda row: float(row[5]))
    assert "examples=0" in none
    assert float(eight[5]) > 1.5 * float(none[5])
    assert (float(none[5]) + float(eight[5])) * 16 == pytest.approx(server.usd, rel=0.02)
    assert lines[-2].startswith(f"paid: ${server.usd:,.4f} for this search")


def test_a_search_stops_within_its_budget_and_says_so(config: Path, server: PickyServer) -> None:
    lines = search(config, "examples=0,1,2,3,4,5,6,7", budget_usd=0.008)
    assert server.usd <= 0.008
    assert any(line.startswith("stopped early: spent $0.00") for line in lines)
    assert 0 < len(table(lines)) < 8
    with PaidAnswers(config.parent / "runs/prompts/answers.sqlite") as paid:
        assert paid.spent_usd == pytest.approx(server.usd)


def test_a_budget_that_pays_for_no_prompt_is_an_error(config: Path) -> None:
    with pytest.raises(BudgetError, match="raise --budget-usd"):
        search(config, "examples=0", budget_usd=1e-9)


def test_ways_to_choose_examples_are_tried_only_where_there_are_examples(config: Path) -> None:
    shown = [" ".join(row[6:]) for row in table(search(config, "examples=0,2", "choose=fixed,bm25", rows=16))]
    assert sorted(shown) == ["examples=0", "examples=2 choose=bm25", "examples=2 choose=fixed"]


def test_without_a_try_examples_and_the_ways_that_can_work_are_tried(config: Path) -> None:
    shown = {" ".join(row[6:]) for row in table(search(config, rows=16))}
    ways = [f"examples={count} choose={way}" for count in (4, 16) for way in ("fixed", "random", "bm25")]
    assert shown == {"examples=0", *ways}


def test_rejected_answers_are_counted_and_wrong(config: Path, server: PickyServer) -> None:
    server.settings.faults, server.settings.kinds = 0.2, ["outside the label set"]
    votes = ("teacher.answers=votes", "teacher.samples=1")
    ((rows, score, _, _, rejected, *_),) = table(search(config, "template=careful.txt", rows=60, overrides=votes))
    assert 0 < int(rejected) < 30
    assert float(score) == pytest.approx(1 - int(rejected) / int(rows), abs=1e-3)


def test_a_member_of_a_committee_is_found_or_must_be_named(config: Path, tiny_encoder: Path) -> None:
    member = json.loads(config.read_text(encoding="utf-8"))["teacher"]
    alone = {"kind": "committee", "members": [{"kind": "prototypes", "model": str(tiny_encoder)}, member]}
    lines = search(config, "examples=0", rows=16, overrides=(f"teacher={json.dumps(alone)}",))
    assert lines[-1] == "winner: teacher.members.1.prompt.examples=0"
    two = (f"teacher={json.dumps({'kind': 'committee', 'members': [member, member]})}",)
    with pytest.raises(InputError, match="found 2 prompts"):
        search(config, "examples=0", overrides=two)
    lines = search(config, "teacher.members.0.prompt.examples=0", rows=16, overrides=two)
    assert lines[-1] == "winner: teacher.members.0.prompt.examples=0"


def test_a_local_model_is_searched_for_nothing(config: Path, server: PickyServer, tiny_llm: Path) -> None:
    local = (f"teacher={{kind: llm_local, model: {tiny_llm}}}",)
    lines = search(config, "examples=0,1", rows=16, overrides=local)
    assert [row[5] for row in table(lines)] == ["-", "-"]
    assert not any(line.startswith("paid") for line in lines)
    assert server.counts()["asked"] == 0


@pytest.mark.parametrize(
    ("tried", "error", "said"),
    [
        ("examples", InputError, "wanted one of template, examples"),
        ("temperature=1", InputError, "wanted one of template, examples"),
        ("examples=many", InputError, "examples='many'"),
        ("examples=[", InputError, "plain values"),
        ("choose=best", InputError, "choose='best'"),
        ("template=nowhere.txt", ConfigError, "nowhere.txt"),
        ("teacher.members.7.prompt.examples=0", InputError, "name its place in each: teacher.prompt"),
        ("examples=29,30", TeacherError, "wanted more than the 30 of prompt.examples"),
    ],
)
def test_a_try_that_cannot_work_is_told_before_a_call(
    config: Path, server: PickyServer, tried: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=re.escape(said)):
        search(config, "choose=fixed" if tried.startswith("examples=29") else "passages=0", tried)
    assert server.counts()["asked"] == 0


def test_a_config_without_a_prompt_has_nothing_to_search(config: Path, tiny_encoder: Path) -> None:
    with pytest.raises(InputError, match="llm_api or llm_local"):
        search(config, overrides=(f"teacher={{kind: prototypes, model: {tiny_encoder}}}",))


def test_the_command_prints_the_table_and_the_winner(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = str(config.parent / "runs")
    assert run(["prompt", "search", str(config), "--try", "examples=0,1", "--rows", "16", "--runs", runs]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split()[:2] == ["rows", "accuracy"]
    assert shown[-1].startswith("winner: teacher.prompt.examples=")


@pytest.mark.parametrize(
    ("trials", "rows", "wanted"),
    [(1, 200, [200]), (2, 200, [200]), (8, 200, [50, 100, 200]), (9, 64, [16, 32, 64]), (4, 10, [10])],
)
def test_rounds_double_their_rows_and_two_prompts_reach_the_end(trials: int, rows: int, wanted: list[int]) -> None:
    assert rungs(trials, rows) == wanted
