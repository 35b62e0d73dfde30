"""One rival, trained and asked in its own environment: python rival_models.py NAME FOLDER ENCODER.

FOLDER holds gold.json ({"texts", "labels"}), pool.json and test.json ({"texts"}); FOLDER/NAME.json gets the answers to
test and the seconds that training and answering took. Runs with the rivals' packages alone, so it imports nothing of
this repository.
"""

import json
import sys
import time
from pathlib import Path

SEED = 0
LAYERS = (1, 3, 5)  # of the encoder, in the students: as many as ours has
PAIRS = 20  # SetFit's num_iterations where it had a default (its paper's R); without, it makes every pair of the gold
TEACHER = "setfit_teacher_model"
STEPS = 1250  # of 32 pairs in the distillation: 20 pairs a text would take all pairs of the pool into memory


def read(folder, name):
    """Return the content of one of the files."""
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def logistic_regression(folder, encoder):
    """Frozen sentence embeddings under a logistic regression."""
    from sentence_transformers import SentenceTransformer
    from sklearn.linear_model import LogisticRegression

    gold = read(folder, "gold")
    model = SentenceTransformer(str(encoder), device="cpu")
    head = LogisticRegression(max_iter=1000, C=10).fit(model.encode(gold["texts"]), gold["labels"])
    return lambda texts: head.predict(model.encode(texts)).tolist()


def model2vec(folder, encoder, lesson="gold"):
    """A static model distilled from the encoder, then fine-tuned as a classifier (model2vec's training)."""
    from model2vec.distill import distill
    from model2vec.train import StaticModelForClassification

    gold = read(folder, lesson)
    static = distill(str(encoder), device="cpu")
    model = StaticModelForClassification.from_static_model(model=static)
    model.fit(gold["texts"], gold["labels"], device="cpu")
    return lambda texts: [str(label) for label in model.predict(texts)]


def model2vec_on_answers(folder, encoder):
    """The same, fine-tuned on the pool as our teacher answers it."""
    return model2vec(folder, encoder, "answered")


def setfit_teacher(folder, encoder):
    """SetFit on gold with the whole encoder; kept for the distillation."""
    model = setfit_trained(folder, encoder, None)
    model.save_pretrained(str(folder / TEACHER))
    return model.predict


def setfit_gold_only(folder, encoder):
    """SetFit on gold with the layers of the student."""
    return setfit_trained(folder, encoder, LAYERS).predict


def setfit_distilled(folder, encoder):
    """SetFit's DistillationTrainer: the teacher above, the student trained by it on the pool."""
    from datasets import Dataset
    from setfit import DistillationTrainer, SetFitModel, trainer_distillation
    from setfit.sampler import ContrastiveDistillationDataset

    class Pairs(ContrastiveDistillationDataset):
        """In setfit 1.1.3 each pair is to be as alike as the first text is to itself, and the student collapses."""

        def generate_pairs(self):
            self.sentence_labels = [(text, row) for row, text in enumerate(self.sentences)]
            super().generate_pairs()

    trainer_distillation.ContrastiveDistillationDataset = Pairs
    teacher = SetFitModel.from_pretrained(str(folder / TEACHER), device="cpu")
    student = setfit_model(folder, encoder, LAYERS)
    texts = read(folder, "pool")["texts"]
    pool, given = Dataset.from_dict({"text": texts}), arguments(num_iterations=None, max_steps=STEPS)
    DistillationTrainer(teacher_model=teacher, student_model=student, args=given, train_dataset=pool).train()
    return student.predict


def setfit_trained(folder, encoder, layers):
    """Return SetFit fine-tuned on gold."""
    from datasets import Dataset
    from setfit import Trainer

    gold, model = read(folder, "gold"), setfit_model(folder, encoder, layers)
    dataset = Dataset.from_dict({"text": gold["texts"], "label": gold["labels"]})
    Trainer(model=model, args=arguments(), train_dataset=dataset).train()
    return model


def setfit_model(folder, encoder, layers):
    """Return an untrained SetFit model over some layers of the encoder (None: all)."""
    import torch
    from sentence_transformers import SentenceTransformer
    from setfit import SetFitModel
    from sklearn.linear_model import LogisticRegression

    body = SentenceTransformer(str(encoder), device="cpu")
    if layers is not None:
        stack = body[0].auto_model.encoder
        stack.layer = torch.nn.ModuleList(stack.layer[index] for index in layers)
    labels = sorted(set(read(folder, "gold")["labels"]))
    return SetFitModel(model_body=body, model_head=LogisticRegression(max_iter=1000), labels=labels)


def arguments(**changes):
    """Return SetFit's own defaults with a fixed seed and nothing written on the way."""
    from setfit import TrainingArguments

    given = {"batch_size": 32, "num_iterations": PAIRS, "num_epochs": 1, "seed": SEED, **changes}
    return TrainingArguments(**given, report_to="none", save_strategy="no")


RIVALS = (
    logistic_regression,
    model2vec,
    model2vec_on_answers,
    setfit_teacher,
    setfit_gold_only,
    setfit_distilled,
)


def main():
    """Train the rival, ask it about test, and write what it said."""
    name, folder, encoder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    started = time.perf_counter()
    predict = {rival.__name__: rival for rival in RIVALS}[name](folder, encoder)
    trained = time.perf_counter()
    labels = [str(label) for label in predict(read(folder, "test")["texts"])]
    found = {"labels": labels, "train_s": trained - started, "answer_s": time.perf_counter() - trained}
    (folder / f"{name}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
