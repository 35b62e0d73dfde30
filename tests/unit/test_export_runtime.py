import json
import random
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from export import classifier as classifier_module
from export import sessions
from export.bundle import MODEL_FILES, BundleManifest, Precision, Remembered
from export.errors import BundleError, ExportError, TextTooLongError
from export.head import finish_head
from export.metrics import sigmoid, softmax
from export.runtime import OnnxClassifier, Predictor, self_test
from tests.conftest import MakeBundle

LABELS = ("delivery", "payment", "size")
TEXTS = ["my parcel has not arrived", "hello", "please help the invoice shows two amounts", "", "these shoes"]
LONG = "my parcel is late again " * 40
ROOT = Path(__file__).parents[2]


@pytest.fixture
def make_bundle(make_tiny_bundle: MakeBundle, tmp_path: Path) -> MakeBundle:
    return partial(make_tiny_bundle, tmp_path / "bundle")


def _torch_logits(checkpoint: Path, text: str, max_tokens: int = 32) -> np.ndarray:
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    with torch.no_grad():
        encoded = tokenizer(text, truncation=True, max_length=max_tokens, return_tensors="pt")
        return np.asarray(model(**encoded).logits[0].numpy())


def test_fp32_answers_are_those_of_torch(tiny_classifier: Path, make_bundle: Any) -> None:
    predictor = Predictor.load(make_bundle(temperature=2.0), precision="fp32")
    for text in (*TEXTS, LONG):
        wanted = softmax(_torch_logits(tiny_classifier, text) / 2.0)
        answer = predictor.predict(text)[0]
        assert np.allclose(list(answer.probabilities.values()), wanted, atol=1e-5)
        assert answer.label == LABELS[int(wanted.argmax())]


def test_int8_is_what_the_bundle_answers_with_unless_asked(make_bundle: Any) -> None:
    bundle = make_bundle()
    shipped, int8, fp32 = (
        Predictor.load(bundle, precision=precision).predict(TEXTS[0])[0].probabilities
        for precision in (None, "int8", "fp32")
    )
    assert shipped == int8 != fp32


def test_many_texts_come_back_in_their_order(make_bundle: Any) -> None:
    predictor = Predictor.load(make_bundle(), precision="fp32")
    texts = [f"{text} {LONG[: 7 * index]}" for index, text in enumerate(TEXTS * 8)]
    together = predictor.predict(texts)
    alone = [predictor.predict(text)[0] for text in texts]
    assert [answer.tokens for answer in together] == [answer.tokens for answer in alone]
    for one, other in zip(together, alone, strict=True):
        assert np.allclose(list(one.probabilities.values()), list(other.probabilities.values()), atol=1e-5)


def test_two_threads_give_the_answers_of_one(make_bundle: Any) -> None:
    bundle = make_bundle()
    one, two = (Predictor.load(bundle, precision="fp32", threads=threads).predict(TEXTS) for threads in (1, 2))
    for answer, other in zip(one, two, strict=True):
        assert answer.probability == pytest.approx(other.probability, abs=1e-6)


def test_one_text_gets_the_same_bits_in_any_company(make_bundle: Any) -> None:
    predictor = Predictor.load(make_bundle())
    first = predictor.predict(TEXTS[0])
    predictor.predict([LONG, *TEXTS])
    assert predictor.predict([TEXTS[0]]) == first
    assert predictor.predict(TEXTS[0])[0].probabilities == first[0].probabilities


def test_the_same_text_gets_the_same_bits_among_10000_requests_of_several_threads(make_bundle: Any) -> None:
    bundle = make_bundle()
    predictor = Predictor.load(bundle, threads=2, deterministic=True)
    texts = [" ".join(word for word in LONG.split()[: 3 + index % 9]) + f" {index % 37}" for index in range(120)]
    alone = Predictor.load(bundle)
    wanted = {text: alone.predict(text)[0] for text in texts}
    generator = random.Random(0)
    requests: list[list[str]] = []
    while sum(map(len, requests)) < 10_000:
        requests.append(generator.choices(texts, k=generator.choice((1, 1, 2, 7, 40))))
    with ThreadPoolExecutor(4) as executor:
        answers = list(executor.map(predictor.predict, requests))
    different = [
        text
        for asked, given in zip(requests, answers, strict=True)
        for text, answer in zip(asked, given, strict=True)
        if answer != wanted[text] or answer.probabilities != wanted[text].probabilities
    ]
    assert different == []
    assert sum(map(len, answers)) >= 10_000


def test_many_texts_run_on_single_threaded_sessions_and_one_text_on_all_threads(
    make_bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    original = sessions.open_session

    def watched(model: Any, threads: int) -> Any:
        opened.append(threads)
        return original(model, threads)

    monkeypatch.setattr(sessions, "open_session", watched)
    monkeypatch.setattr(classifier_module, "open_session", watched)
    predictor = Predictor.load(make_bundle(), threads=2)
    predictor.predict(TEXTS[0])
    assert opened == [2]
    predictor.predict(TEXTS)
    predictor.predict(TEXTS)
    assert opened == [2, 1, 1]


@pytest.mark.parametrize(("threads", "spinning"), [(1, "0"), (2, "1")])
def test_threads_spin_only_where_they_share_a_run_and_only_while_it_lasts(
    tiny_models: dict[Precision, Path], threads: int, spinning: str
) -> None:
    options = sessions.open_session(tiny_models["int8"], threads).get_session_options()
    assert options.intra_op_num_threads == threads
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == spinning
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"


@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
def test_probabilities_of_the_graph_are_those_of_a_bundle_with_a_temperature(
    tiny_models: dict[Precision, Path], make_bundle: Any, tmp_path: Path, kind: str
) -> None:
    finished = tmp_path / "finished.onnx"
    finished.write_bytes(tiny_models["int8"].read_bytes())
    finish_head(finished, kind, 0.5)
    old = Predictor.load(make_bundle(kind=kind, temperature=0.5))
    wanted = old.predict(TEXTS)
    shutil.rmtree(tmp_path / "bundle")
    new = Predictor.load(make_bundle({"int8": finished}, kind=kind))
    for text, answer in zip(TEXTS, new.predict(TEXTS), strict=True):
        before = wanted[TEXTS.index(text)]
        assert (answer.label, answer.labels) == (before.label, before.labels)
        assert list(answer.probabilities.values()) == pytest.approx(list(before.probabilities.values()), abs=1e-5)


def test_no_text_gives_no_answer(make_bundle: Any) -> None:
    assert Predictor.load(make_bundle()).predict([]) == []


def test_the_label_of_a_single_label_answer_is_the_most_probable(make_bundle: Any) -> None:
    answer = Predictor.load(make_bundle()).predict(TEXTS[0])[0]
    best = max(answer.probabilities, key=lambda name: answer.probabilities[name])
    assert (answer.label, answer.labels) == (best, (best,))
    assert answer.probability == answer.probabilities[best]
    assert sum(answer.probabilities.values()) == pytest.approx(1.0, abs=1e-6)


def test_multi_label_answers_follow_the_thresholds(tiny_classifier: Path, make_bundle: Any) -> None:
    probs = sigmoid(_torch_logits(tiny_classifier, TEXTS[0]))
    order = [LABELS[column] for column in np.argsort(-probs)]
    thresholds = {order[0]: 0.01, order[1]: 0.02, order[2]: 0.99}
    predictor = Predictor.load(make_bundle(kind="multi_label", thresholds=thresholds), precision="fp32")
    answer = predictor.predict(TEXTS[0])[0]
    assert (answer.label, answer.labels) == (order[0], (order[0], order[1]))


def test_a_multi_label_answer_may_name_no_label(make_bundle: Any) -> None:
    bundle = make_bundle(kind="multi_label", thresholds=dict.fromkeys(LABELS, 0.999))
    answer = Predictor.load(bundle).predict(TEXTS[0])[0]
    assert (answer.label, answer.labels) == (None, ())
    assert answer.probability == max(answer.probabilities.values())


def test_a_long_text_is_cut_visibly(make_bundle: Any) -> None:
    answers = Predictor.load(make_bundle()).predict([LONG, TEXTS[0]])
    assert [answer.truncated for answer in answers] == [True, False]
    assert answers[0].tokens == 32


def test_a_long_text_is_refused_when_the_bundle_says_so(make_bundle: Any) -> None:
    predictor = Predictor.load(make_bundle(too_long="refuse"))
    with pytest.raises(TextTooLongError, match="text 1 has more than the 32 tokens"):
        predictor.predict([TEXTS[0], LONG])
    assert predictor.predict(TEXTS[0])[0].truncated is False


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("bad", "found"), [("a\ud800b", "lone surrogate"), (None, "NoneType"), (b"bytes", "bytes")])
def test_what_is_no_text_is_refused_by_name(make_bundle: Any, bad: Any, found: str, threads: int) -> None:
    predictor = Predictor.load(make_bundle(), threads=threads)
    for texts in ([bad], ["fine", bad]):
        with pytest.raises(ExportError, match=found):
            predictor.predict(texts)
    assert len(predictor.predict(["a\x00b", "\u202eright to left"])) == 2


def test_an_answer_that_is_no_number_is_an_error(
    tiny_models: dict[Precision, Path], make_bundle: Any, tmp_path: Path
) -> None:
    model = onnx.load(tiny_models["fp32"])
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "head.1.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(3, np.nan, np.float32), bias.name))
    onnx.save(model, tmp_path / "nan.onnx")
    bundle = make_bundle({"fp32": tmp_path / "nan.onnx"}, precision="fp32")
    with pytest.raises(ExportError, match="not a finite number"):
        Predictor.load(bundle).predict("hello")
    assert self_test(bundle) == ["fp32: the model gave a logit that is not a finite number; export the student again"]


def test_a_sound_bundle_passes_its_self_test(make_bundle: Any) -> None:
    assert self_test(make_bundle()) == []


@pytest.mark.parametrize(("shift", "problems"), [(0.01, 0), (0.05, 1)])
def test_an_answer_far_from_the_one_remembered_is_a_problem(
    tiny_bundle: Path, make_bundle: Any, shift: float, problems: int
) -> None:
    given = Predictor.load(tiny_bundle, "int8", deterministic=True).predict(TEXTS)
    remembered = tuple(
        Remembered(text=text, label=str(one.label), probability=one.probability - shift * (text == TEXTS[1]))
        for text, one in zip(TEXTS, given, strict=True)
    )
    found = self_test(make_bundle(answers={"int8": remembered}))
    assert len(found) == problems
    assert all(problem.startswith(f"int8: {TEXTS[1]!r} is ") for problem in found)


def test_an_answer_remembered_for_no_label_is_refused(make_bundle: Any) -> None:
    with pytest.raises(ValueError, match="none of the labels"):
        make_bundle(answers={"fp32": (Remembered(text="hello", label="nobody", probability=0.5),)})


@pytest.mark.parametrize("name", ["tokenizer.json", MODEL_FILES["int8"]])
def test_a_changed_file_is_not_loaded(make_bundle: Any, name: str) -> None:
    bundle = make_bundle()
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(BundleError, match="wrong SHA-256") as caught:
        Predictor.load(bundle)
    assert name in str(caught.value)


def test_a_file_that_the_manifest_does_not_list_stops_the_loader(make_bundle: Any) -> None:
    bundle = make_bundle()
    (bundle / "notes.json").write_text("{}")
    with pytest.raises(BundleError, match=r"notes\.json is not listed") as caught:
        Predictor.load(bundle)
    assert "remove" in str(caught.value)


def test_a_precision_that_the_bundle_lacks_is_named(tiny_models: dict[Precision, Path], make_bundle: Any) -> None:
    bundle = make_bundle({"fp32": tiny_models["fp32"]}, precision="fp32")
    with pytest.raises(BundleError, match=r"model_quantized\.onnx is not listed"):
        Predictor.load(bundle, precision="int8")
    assert Predictor.load(bundle).manifest.precision == "fp32"


def test_a_model_with_another_number_of_logits_is_refused(
    tiny_classifier: Path, tiny_models: dict[Precision, Path]
) -> None:
    classifier = OnnxClassifier(tiny_models["fp32"], tiny_classifier / "tokenizer.json", 32)
    manifest = BundleManifest(name="shop", kind="single_label", labels=("a", "b"), max_tokens=32, precision="fp32")
    with pytest.raises(BundleError, match="gives 3 logits"):
        Predictor(manifest, classifier)
    assert classifier.width == 3


def test_a_limit_beyond_the_model_is_an_error_and_no_crash(
    tiny_classifier: Path, tiny_models: dict[Precision, Path]
) -> None:
    classifier = OnnxClassifier(tiny_models["fp32"], tiny_classifier / "tokenizer.json", 1000)
    with pytest.raises(ExportError, match="check that max_tokens fits the model"):
        classifier.logits_one(LONG)
    assert classifier.logits_one("hello").shape == (3,)


def test_bulk_logits_stay_within_the_token_budget(
    tiny_classifier: Path, tiny_models: dict[Precision, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = OnnxClassifier(tiny_models["fp32"], tiny_classifier / "tokenizer.json", 64)
    sizes = []
    run = classifier_module._run
    monkeypatch.setattr(classifier_module, "_run", lambda *given: sizes.append(given[2][0].size) or run(*given))
    assert classifier.logits([LONG, *TEXTS] * 20).shape == (120, 3)
    assert 256 <= max(sizes) <= 512


def test_a_missing_file_is_one_error_of_this_package(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not open") as caught:
        OnnxClassifier(tmp_path / "model.onnx", tmp_path / "tokenizer.json", 32)
    assert "export it again" in str(caught.value)


def test_the_serving_modules_load_no_training_library() -> None:
    code = (
        "import json, sys, export.runtime, export.bundle, export.bench;"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    loaded = json.loads(subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT))
    assert "onnxruntime" in loaded
    assert {"torch", "transformers", "datasets", "onnx", "sklearn"}.isdisjoint(loaded)


def test_what_an_answer_needs_is_not_slow_to_import() -> None:
    code = "import sys, export.runtime; print({'pydantic', 'logging', 'concurrent.futures', 'shutil'} & {*sys.modules})"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT).strip() == "set()"


def test_a_job_that_fails_is_raised_and_the_sessions_stay_usable(tiny_models: dict[Precision, Path]) -> None:
    pool, answered = sessions.SessionPool(tiny_models["int8"], 2), []

    def answer(_: Any, job: int) -> int:
        if job < 0:
            raise ExportError(f"{job} is negative")
        answered.append(job)
        time.sleep(0.001)
        return job * job

    for _ in range(3):
        with pytest.raises(ExportError, match="-5 is negative"):
            pool.run(answer, [1, -5, *range(2000)])
    assert len(answered) < 1000
    assert pool.run(answer, range(100)) == [job * job for job in range(100)]
