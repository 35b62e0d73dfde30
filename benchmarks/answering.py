"""A process that answers texts in one of several ways and times itself; run in our environment or in a rival's.

    python answering.py KIND PATH THREADS

It writes "ready", then reads JSON lines {"texts": [...], "how": ..., "threads": N} and writes nanoseconds: "each" gives
one number a text, "stream" one for all of them asked one by one by N Python threads, "bulk" one for all at once.
Knows only the library of its KIND.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Answer = Callable[[str], object]
AnswerMany = Callable[[Sequence[str]], object]
_BULK_BATCH = 32  # the default of sentence-transformers


def ours(path: str, threads: int) -> tuple[Answer, AnswerMany]:
    """A bundle through our runtime."""
    from export.runtime import Predictor

    predictor = Predictor.load(path, threads=threads)
    return predictor.predict, predictor.predict


def pipeline(path: str, threads: int) -> tuple[Answer, AnswerMany]:
    """Optimum's int8 model through transformers.pipeline."""
    from optimum.onnxruntime import ORTModelForSequenceClassification
    from transformers import AutoTokenizer
    from transformers import pipeline as make_pipeline

    model = ORTModelForSequenceClassification.from_pretrained(
        path, file_name="model_quantized.onnx", session_options=_options(threads)
    )
    tokenizer = AutoTokenizer.from_pretrained(path)
    classify = make_pipeline("text-classification", model=model, tokenizer=tokenizer)
    return classify, lambda texts: classify(list(texts), batch_size=_BULK_BATCH)


def bare(path: str, threads: int) -> tuple[Answer, AnswerMany]:
    """Optimum's int8 graph called with onnxruntime and tokenizers alone."""
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer

    file = os.path.join(path, "model_quantized.onnx")
    session = onnxruntime.InferenceSession(file, _options(threads), providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(os.path.join(path, "tokenizer.json"))
    tokenizer.no_padding()
    names = {one.name for one in session.get_inputs()}
    with open(os.path.join(path, "config.json"), encoding="utf-8") as file_of_labels:
        labels = json.load(file_of_labels)["id2label"]

    def answer(text: str) -> tuple[str, float]:
        ids = np.array([tokenizer.encode(text).ids], np.int64)
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        logits = session.run(None, {name: given[name] for name in names})[0][0]
        probs = np.exp(logits - logits.max())
        best = int(probs.argmax())
        return labels[str(best)], float(probs[best] / probs.sum())

    return answer, lambda texts: [answer(text) for text in texts]


def teacher(path: str, threads: int) -> tuple[Answer, AnswerMany]:
    """A fitted PyTorch teacher."""
    import torch

    from teacher.kinds import load_teacher

    torch.set_num_threads(threads)
    fitted = load_teacher(Path(path))
    return lambda text: fitted.label([text]), fitted.label


def sentences(path: str, threads: int) -> tuple[Answer, AnswerMany]:
    """The int8 ONNX backend of sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    options = {"file_name": "onnx/model_qint8_avx512_vnni.onnx", "session_options": _options(threads)}
    model = SentenceTransformer(path, backend="onnx", model_kwargs={**options, "provider": "CPUExecutionProvider"})
    return lambda text: model.encode([text]), lambda texts: model.encode(list(texts), batch_size=_BULK_BATCH)


KINDS = {kind.__name__: kind for kind in (ours, pipeline, bare, teacher, sentences)}


def main() -> None:
    """Open what is wanted and answer until the input ends."""
    kind, path, threads = sys.argv[1:]
    results, sys.stdout = sys.stdout, sys.stderr  # a library that prints must not break the protocol
    answer, answer_many = KINDS[kind](path, int(threads))
    print("ready", file=results, flush=True)
    for line in sys.stdin:
        wanted = json.loads(line)
        texts = wanted["texts"]
        if wanted["how"] == "each":
            found: Any = _time_each(answer, texts)
        elif wanted["how"] == "stream":
            found = _time_stream(answer, texts, wanted["threads"])
        else:
            started = time.perf_counter_ns()
            answer_many(texts)
            found = time.perf_counter_ns() - started
        print(json.dumps(found), file=results, flush=True)


def _time_each(answer: Answer, texts: Sequence[str]) -> list[int]:
    answer(texts[0])  # what another process left in the cache is not its own
    taken = []
    for text in texts:
        started = time.perf_counter_ns()
        answer(text)
        taken.append(time.perf_counter_ns() - started)
    return taken


def _time_stream(answer: Answer, texts: Sequence[str], threads: int) -> int:
    def work(share: Sequence[str]) -> None:
        for text in share:
            answer(text)

    workers = [threading.Thread(target=work, args=(texts[number::threads],)) for number in range(threads)]
    started = time.perf_counter_ns()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return time.perf_counter_ns() - started


def _options(threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return options


if __name__ == "__main__":
    main()
