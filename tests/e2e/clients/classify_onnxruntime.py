"""Answer texts with plain onnxruntime: python classify_onnxruntime.py FOLDER FILE < texts.json > answers.json"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

folder, file_name = sys.argv[1:]
session = onnxruntime.InferenceSession(f"{folder}/onnx/{file_name}", providers=["CPUExecutionProvider"])
tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
labels = json.loads(Path(f"{folder}/config.json").read_bytes())["id2label"]
answers = []
for text in json.load(sys.stdin):
    ids = np.array([tokenizer.encode(text).ids])
    logits = session.run(["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0][0]
    probs = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    answers.append([labels[str(probs.argmax())], float(probs.max())])
print(json.dumps(answers))
