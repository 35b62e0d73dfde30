"""Row R12 of the faults: 24 exported students of which 8 are made bad, through the gates of the export stage."""

from pathlib import Path

import checkout  # noqa: F401  (for `tests`)
from lines import Line

from distill.conductor import silence_libraries
from tests.damaged_models import DAMAGES, judge_int8_of, make_student, write_faults_corpus

_MODELS = 24


def bad_models(scratch: Path, share: float) -> Line:
    """Judge the students; `share` of the sound ones are left out, none of the bad."""
    silence_libraries()
    corpus = write_faults_corpus(scratch)
    names = [*DAMAGES, *(f"sound {number}" for number in range(round((_MODELS - len(DAMAGES)) * share)))]
    rejected, named, passed = 0, 0, 0
    for seed, name in enumerate(names):
        student = make_student(scratch / f"model-{seed}", corpus, seed)
        gates = judge_int8_of(student, scratch / f"{seed}.onnx", name if name in DAMAGES else None)
        failed = {gate for gate, verdict in gates.items() if not verdict}
        if name in DAMAGES:
            rejected += bool(failed)
            named += DAMAGES[name][2] in failed
            if DAMAGES[name][2] not in failed:
                print(f"# {name}: wanted {DAMAGES[name][2]} among the failed gates, found {sorted(failed)}")
        else:
            passed += not failed
            if failed:
                print(f"# {name}: {sorted(failed)}")
    sound = len(names) - len(DAMAGES)
    return Line(
        "R12",
        f"injected {len(DAMAGES)} / survived {named}: {rejected} bad students rejected, {named} with the reason; "
        f"{passed} of {sound} sound ones passed",
        "8 of 8 rejected, the reason named",
        named == rejected == len(DAMAGES) == 8 and passed == sound,
    )
