"""What a run tells a person after each stage, and the verdicts that stop it."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distill.conductor import Conductor
from distill.errors import GateError
from teacher.errors import WeakTeacherError
from teacher.files import write_atomically
from teacher.processes import is_first_process

_REPORTS = ("report.json", "report.md", "report.html", "label_errors.csv")


def tell(stage: str, conductor: Conductor) -> None:
    """Say what came out of a finished stage; raise WeakTeacherError after a teacher not worth distilling."""
    if stage in _TELLERS and is_first_process():
        _TELLERS[stage](conductor)


def check_gates(conductor: Conductor) -> None:
    """Raise GateError, naming the gates, when the bundle had to fall back to fp32."""
    failed = [gate for gate in _read(conductor.path("export") / "potstill.json")["gates"] if not gate["passed"]]
    if failed:
        reasons = "; ".join(f"{gate['name']}: {gate['detail']}" for gate in failed)
        raise GateError(
            f"int8 failed {len(failed)} gate(s) and the bundle ships fp32 instead: {reasons}; "
            "train longer, raise the limits under export, or set export.precision=fp32"
        )


def _tell_corpus(conductor: Conductor) -> None:
    meta = _read(conductor.path("corpus") / "meta.json")
    rows = ", ".join(f"{count:,} {part}" for part, count in meta["rows"].items())
    aside = {
        "dropped": sum(sum(reasons.values()) for reasons in meta["dropped"].values()),
        "quarantined": sum(meta["quarantined"].values()),
    }
    notes = "".join(f", {count:,} rows {what}" for what, count in aside.items() if count)
    conductor.reporter.say(f"corpus: {rows} rows, {len(meta['labels'])} labels{notes}")


def _tell_teacher(conductor: Conductor) -> None:
    from teacher.cards import fit_warnings

    scores = _read(conductor.path("teacher") / "dev_scores.json")
    metric, teacher, rival = scores["metric"], scores["teacher"], scores["tfidf_gold"]
    conductor.reporter.say(
        f"teacher: {metric} {teacher:.4f} on {scores['rows']:,} dev rows (TF-IDF on the same gold: {rival:.4f})"
    )
    for warning in fit_warnings(conductor.path("teacher")):
        conductor.warn(warning)
    if teacher > rival:
        return
    advice = (
        f"the teacher's {metric} on dev is {teacher:.4f}, no better than TF-IDF with a linear model on the same gold "
        f"({rival:.4f}); distilling it would only lose quality: give more gold, improve the teacher (a stronger model, "
        "more epochs, a better prompt or rules), or go on all the same with label.weak_teacher=warn"
    )
    if conductor.config.label.weak_teacher == "stop":
        raise WeakTeacherError(advice)
    conductor.warn(advice)


def _tell_student(conductor: Conductor) -> None:
    metrics = _read(conductor.path("train") / "metrics.json")
    vocabulary, variants = metrics["vocabulary"], metrics["variants"]
    conductor.reporter.say(
        f"student: {metrics['parameters']:,} parameters, {vocabulary['after']:,} of {vocabulary['before']:,} tokens, "
        f"{metrics['epochs']:g} epochs over {metrics['rows']:,} rows"
        + (f" and {variants:,} variants of them" if variants else "")
        + f", dev score {metrics['dev_score']:.4f}"
    )


def _tell_tuned(conductor: Conductor) -> None:
    metrics = _read(conductor.path("tune") / "metrics.json")
    if metrics["dev_score_tuned"] is not None:
        conductor.reporter.say(
            f"tuned on gold: dev score {metrics['dev_score_untuned']:.4f} before, {metrics['dev_score_tuned']:.4f} "
            f"after; the {metrics['kept']} student goes on"
        )


def _tell_bundle(conductor: Conductor) -> None:
    manifest = _read(conductor.path("export") / "potstill.json")
    gates = ", ".join(
        f"{gate['name']} {gate['value']:.4g} (at most {gate['limit']:.4g}){'' if gate['passed'] else ' FAILED'}"
        for gate in manifest["gates"]
    )
    conductor.reporter.say(f"bundle: {manifest['precision']}; {gates or 'no gates'}")


def _tell_report(conductor: Conductor) -> None:
    for name in _REPORTS:
        _copy(conductor.path("report") / name, conductor.run / name)
    report = _read(conductor.run / "report.json")
    quality, headline = report["quality"], report["headline"]
    for name, measured in quality.items():
        low, high = measured[f"{headline}_low"], measured[f"{headline}_high"]
        conductor.reporter.say(f"  {name:<13} {headline} {measured[headline]:.4f} [{low:.4f}, {high:.4f}] on test")
    latency, size = report["latency"], report["size"]
    student = "student_int8" if "student_int8" in latency else "student_fp32"
    facts = [f"{latency[student]['p50_ms']:.2f} ms a text (p50, {latency[student]['threads']} thread)"]
    if "speedup_p50" in latency:
        facts.append(f"{latency['speedup_p50']:.1f} times faster than the teacher")
    facts.append(f"{size['bundle_bytes'] / 1e6:.1f} MB")
    if size["ratio"]:
        facts.append(f"{size['ratio']:.0f} times smaller")
    conductor.reporter.say("  " + ", ".join(facts))
    conductor.reporter.say(f"report: {conductor.run / 'report.html'}")


def _copy(source: Path, target: Path) -> None:
    write_atomically(target, lambda path: shutil.copyfile(source, path))


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


_TELLERS: Mapping[str, Callable[[Conductor], None]] = {
    "corpus": _tell_corpus,
    "teacher": _tell_teacher,
    "train": _tell_student,
    "tune": _tell_tuned,
    "export": _tell_bundle,
    "report": _tell_report,
}
