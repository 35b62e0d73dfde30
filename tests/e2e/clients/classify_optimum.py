"""Answer texts with Optimum: python classify_optimum.py FOLDER FILE... < texts.json, one line of answers a FILE."""

import json
import sys

from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoTokenizer, pipeline

folder, *file_names = sys.argv[1:]
texts = json.load(sys.stdin)
for file_name in file_names:
    model = ORTModelForSequenceClassification.from_pretrained(folder, subfolder="onnx", file_name=file_name)
    classify = pipeline("text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(folder))
    answers = [classify(text)[0] for text in texts]
    print(json.dumps([[answer["label"], answer["score"]] for answer in answers]))
