import shutil
from pathlib import Path

import pytest

from teacher.encoder import Gold
from teacher.errors import TeacherError
from teacher.example import Example, content_id
from teacher.retrieval import ExampleChooser, Shown, fit_chooser, read_passages
from teacher.spec import PromptSpec
from teacher.task import Task, TaskKind
from tests.conftest import LABELS, corpus_rows

TASK = Task(TaskKind.SINGLE_LABEL, LABELS)
ROWS = [Example(content_id(text), text, (label,)) for text, label in corpus_rows()[::4]]  # 113
TEXTS = [text for text, _ in corpus_rows()[1::50]]


def make_chooser(folder: Path, seed: int = 0, **prompt: object) -> ExampleChooser:
    gold = Gold(TASK, ROWS, ROWS[:10], lambda logits, targets: 0.0, seed)
    folder.mkdir(exist_ok=True)
    fit_chooser(PromptSpec.model_validate(prompt), gold, folder)
    return ExampleChooser(folder)


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """Return a folder with two documents of two paragraphs each, and a file of another kind."""
    folder = tmp_path / "documents"
    (folder / "more").mkdir(parents=True)
    (folder / "rules.md").write_text("Parcels come\nby courier.\n\n\nInvoices go by mail.\n", encoding="utf-8")
    (folder / "more" / "sizes.txt").write_text("Jackets run large.\n \nHats are adjustable.", encoding="utf-8")
    (folder / "notes.html").write_text("<p>no document</p>", encoding="utf-8")
    return folder


@pytest.mark.parametrize("choose", ["fixed", "random", "dense", "bm25"])
def test_a_text_of_gold_is_never_its_own_example(choose: str, tmp_path: Path, tiny_encoder: Path) -> None:
    chooser = make_chooser(tmp_path, choose=choose, examples=8, encoder=str(tiny_encoder))
    for example, shown in zip(ROWS, chooser.choose([row.text for row in ROWS]), strict=True):
        ids = [one.id for one in shown.examples]
        assert example.id not in ids
        assert len(set(ids)) == 8


@pytest.mark.parametrize("choose", ["fixed", "random", "dense", "bm25"])
def test_a_text_has_the_same_examples_whatever_stands_beside_it(
    choose: str, tmp_path: Path, tiny_encoder: Path
) -> None:
    chooser = make_chooser(tmp_path, choose=choose, examples=3, encoder=str(tiny_encoder))
    together = chooser.choose(TEXTS)
    assert [chooser.choose([text])[0] for text in TEXTS] == together
    assert ExampleChooser(tmp_path).choose(TEXTS) == together


def test_fixed_examples_show_every_class_before_one_comes_twice(tmp_path: Path) -> None:
    first, second = make_chooser(tmp_path, choose="fixed", examples=6).choose(TEXTS[:2])
    assert first == second
    assert sorted(example.labels[0] for example in first.examples if example.labels) == sorted(LABELS * 2)


def test_random_examples_follow_the_text_and_the_seed(tmp_path: Path) -> None:
    chosen = make_chooser(tmp_path / "one", choose="random", examples=4).choose(TEXTS[:2])
    other = make_chooser(tmp_path / "two", 1, choose="random", examples=4).choose(TEXTS[:2])
    assert len({shown.sources for shown in (*chosen, *other)}) == 4


def test_bm25_puts_the_likest_example_next_to_the_text(tmp_path: Path) -> None:
    shown = make_chooser(tmp_path, choose="bm25", examples=3).choose(["my invoice shows two amounts"])[0]
    assert "the invoice" in shown.examples[-1].text
    assert "shows two amounts" in shown.examples[-1].text
    assert {example.labels for example in shown.examples} == {("payment",)}


def test_bm25_shows_every_class_to_a_text_without_a_known_word(tmp_path: Path) -> None:
    shown = make_chooser(tmp_path, choose="bm25", examples=3).choose(["xyzzy", "\U0001f642"])
    assert [{example.labels for example in each.examples} for each in shown] == [{(label,) for label in LABELS}] * 2


def test_dense_examples_are_those_with_the_nearest_embedding(tmp_path: Path, tiny_encoder: Path) -> None:
    from teacher.encoder import load_embedder

    chooser = make_chooser(tmp_path, choose="dense", examples=2, encoder=str(tiny_encoder))
    vectors = load_embedder(str(tiny_encoder), 256).logits([row.text for row in ROWS] + TEXTS[:1])
    nearness = vectors[:-1] @ vectors[-1]
    found = [one.id for one in chooser.choose(TEXTS[:1])[0].examples]
    by_id = {row.id: near for row, near in zip(ROWS, nearness, strict=True)}
    assert [by_id[one] for one in found] == pytest.approx(sorted(nearness)[-2:], abs=1e-5)


def test_paragraphs_are_named_by_file_and_number(documents: Path) -> None:
    found = {passage.id: passage.text for passage in read_passages(documents)}
    assert found == {
        "more/sizes.txt#1": "Jackets run large.",
        "more/sizes.txt#2": "Hats are adjustable.",
        "rules.md#1": "Parcels come by courier.",
        "rules.md#2": "Invoices go by mail.",
    }


def test_a_long_paragraph_is_cut_between_words(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("word " * 1000, encoding="utf-8")
    passages = read_passages(tmp_path)
    assert [passage.id for passage in passages] == [f"long.txt#{number}" for number in range(1, 5)]
    assert " ".join(passage.text for passage in passages).split() == ["word"] * 1000


@pytest.mark.parametrize("is_dense", [False, True])
def test_passages_are_found_by_text_and_named_in_the_sources(
    is_dense: bool, tmp_path: Path, documents: Path, tiny_encoder: Path
) -> None:
    encoder = str(tiny_encoder) if is_dense else None
    prompt = {"documents": str(documents), "passages": 1, "examples": 2, "encoder": encoder}
    shown = make_chooser(tmp_path / "chooser", **prompt).choose(["Hats are adjustable."])[0]
    assert [passage.id for passage in shown.passages] == ["more/sizes.txt#2"]
    assert shown.sources == (*(example.id for example in shown.examples), "more/sizes.txt#2")


def test_a_passage_that_shares_no_word_with_the_text_is_not_shown(tmp_path: Path, documents: Path) -> None:
    shown = make_chooser(tmp_path / "chooser", documents=str(documents), passages=4).choose(["hello", "a large hat"])
    assert shown[0] == Shown()
    assert [passage.id for passage in shown[1].passages] == ["more/sizes.txt#1"]


def test_the_digest_follows_what_may_be_shown(tmp_path: Path, documents: Path) -> None:
    prompt = {"documents": str(documents), "passages": 1, "examples": 2}
    first = make_chooser(tmp_path / "one", **prompt).digest
    assert make_chooser(tmp_path / "two", **prompt).digest == first
    (documents / "rules.md").write_text("Parcels are lost.", encoding="utf-8")
    assert make_chooser(tmp_path / "three", **prompt).digest != first
    assert make_chooser(tmp_path / "four", **prompt | {"choose": "bm25"}).digest != first


@pytest.mark.parametrize(
    ("prompt", "complaint"),
    [
        ({"examples": 2, "choose": "dense"}, "wants prompt.encoder"),
        ({"examples": 200}, "found 113 gold rows, wanted more than the 200"),
        ({"passages": 2}, "prompt.documents is not"),
        ({"passages": 2, "documents": "/nowhere/at/all"}, "found no folder at /nowhere/at/all"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused_in_one_line(
    prompt: dict[str, object], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(TeacherError, match=complaint) as error:
        make_chooser(tmp_path, **prompt)
    assert "\n" not in str(error.value)


def test_a_folder_without_paragraphs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n\n", encoding="utf-8")
    with pytest.raises(TeacherError, match=r"found no paragraph in a \.txt or \.md file"):
        read_passages(tmp_path)


def test_a_document_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(TeacherError, match=r"bad\.txt"):
        read_passages(tmp_path)


def test_an_encoder_that_was_moved_away_is_named_with_what_to_do(tmp_path: Path, tiny_encoder: Path) -> None:
    encoder = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    make_chooser(tmp_path, choose="dense", examples=2, encoder=str(encoder))
    encoder.rename(tmp_path / "elsewhere")
    with pytest.raises(TeacherError, match=r"retrieval\.json .*encoder, which is not there.*set prompt\.encoder"):
        ExampleChooser(tmp_path)
