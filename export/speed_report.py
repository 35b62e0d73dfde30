"""The speed report as one HTML page: what MLPerf's scenarios gave, how it was measured and what to doubt.

Renders what `speed.json` holds and measures nothing. An absent figure is a dash.
"""

from collections.abc import Mapping
from html import escape
from typing import Any

from export.charts import load_chart, percentile_chart
from export.report_page import card, document, figure, figures, folded, section
from export.report_tables import Table, machine_table
from export.report_wording import (
    count,
    data_size,
    entries,
    interval,
    milliseconds,
    moment,
    number,
    pick,
    seconds,
    shortest,
    table_of,
    times,
    whole_percent,
    words,
)

Report = Mapping[str, Any]
_TAILS = ("p90", "p99", "p99.9")


def render_speed(report: Report) -> str:
    """Return the speed report as one self-contained HTML document."""
    name = words(pick(report, "name"))
    body = "\n".join((_header(report, name), _verdict(report), _cards(report), *_sections(report)))
    return document(f"{name}: speed", body, "Made by Potstill. The same figures for machines: speed.json.")


def _names(report: Report) -> dict[str, str]:
    """Return how each contender is called."""
    kinds = {name: pick(one, "precision") or pick(one, "kind") for name, one in table_of(report, "contenders").items()}
    return {
        name: f"{'this bundle' if name == 'bundle' else 'the other'} ({words(kind)})" for name, kind in kinds.items()
    }


def _header(report: Report, name: str) -> str:
    texts = table_of(report, "texts")
    measured = (
        f"{count(texts.get('count'))} texts, median {count(texts.get('tokens_p50'))} tokens, "
        f"longest {count(texts.get('tokens_max'))} · {moment(pick(report, 'created'))}"
    )
    return f"""<header>
<p class="eyebrow">Speed report</p>
<h1>{escape(name)}</h1>
<p class="meta">{escape(measured)}</p>
</header>"""


def _verdict(report: Report) -> str:
    control = table_of(report, "control")
    low, high = number(control, "low"), number(control, "high")
    is_sound = low is not None and high is not None and low <= 1 <= high
    ends = interval(low, high, shortest)
    speedup = table_of(report, "speedup")
    p50 = milliseconds(pick(report, "single_stream", "bundle", "percentiles_ms", "p50"))
    sentence = f"Half of the texts are answered within {p50}, text in to label out."
    if speedup:
        around = interval(speedup.get("low"), speedup.get("high"), times)
        sentence += f" That is {times(speedup.get('estimate'))} as fast as the other, 95 % interval {around}."
    doubt = (
        f"The A/A control, this bundle against itself, gave {ends}, which holds 1: the machine was quiet enough."
        if is_sound
        else f"The A/A control, this bundle against itself, gave {ends} and does not hold 1: "
        "something else ran on this machine; measure again."
    )
    return f"""<section class="card verdict {"passed" if is_sound else "caution"}">
<p class="status">{"sound" if is_sound else "doubtful"}</p>
<p class="sentence">{escape(sentence)}</p>
<ul><li>{escape(doubt)}</li></ul>
</section>"""


def _cards(report: Report) -> str:
    stream = table_of(report, "single_stream", "bundle")
    bound = stream.get("bounds_ms")
    target = milliseconds(pick(report, "plan", "target_ms"))
    cold = table_of(report, "cold_start", "bundle")
    offline = table_of(report, "offline", "bundle")
    resident = number(cold, "resident_mb")
    return figures(
        (
            ("SingleStream, p90", milliseconds(pick(bound, "p90")), "early-stopping estimate, MLPerf's figure"),
            ("Offline, texts a second", count(offline.get("per_second")), f"{count(offline.get('queries'))} at once"),
            (
                "Server, texts a second",
                count(pick(report, "server", "bundle", "most_per_second")),
                f"most with p99 within {target}",
            ),
            (
                "cold start",
                seconds(cold.get("total_s")),
                f"{data_size(None if resident is None else resident * 1e6)} resident",
            ),
        )
    )


def _sections(report: Report) -> list[str]:
    names = _names(report)
    curves = {name: pick(report, "single_stream", name, "curve") for name in names}
    points = {
        name: [
            (pick(point, "per_second"), pick(point, "percentiles_ms", "p50"), pick(point, "percentiles_ms", "p99"))
            for point in entries(report, "server", name, "points")
        ]
        for name in names
    }
    percentiles = figure(
        "Latency by percentile",
        "One text after another, the contenders in turn.",
        percentile_chart(curves, names),
    )
    load = figure(
        "Latency by throughput",
        "Texts arrive when Poisson says, ready or not.",
        load_chart(points, names),
    )
    tables = (_stream_table(report, names), _server_table(report, names), _offline_table(report, names))
    return [
        section("Latency and load", f'<div class="grid">{percentiles}{load}</div>'),
        section("Scenarios", "".join(map(card, tables))),
        section(
            "Start and stages", f'<div class="grid">{card(_stages_table(report))}{card(_cold_table(report))}</div>'
        ),
        section("How it was measured", card(_method_table(report), "") + folded(machine_table(report))),
    ]


def _stream_table(report: Report, names: Mapping[str, str]) -> Table:
    rows = []
    for name, title in names.items():
        stream = table_of(report, "single_stream", name)
        medians = [value for value in entries(stream, "p50_of_restarts_ms") if isinstance(value, int | float)]
        rows.append(
            (
                title,
                *(milliseconds(pick(stream, "percentiles_ms", tail)) for tail in ("p50", *_TAILS)),
                *(milliseconds(pick(stream, "bounds_ms", tail)) for tail in _TAILS),
                interval(min(medians, default=None), max(medians, default=None), milliseconds),
                count(stream.get("queries")),
            )
        )
    columns = ("", "p50", *_TAILS, *(f"{tail} at most" for tail in _TAILS), "p50 of restarts", "answers")
    note = (
        "At most: MLPerf's early-stopping estimate, which the percentile does not exceed with 99 % confidence. A dash: "
        "too few answers (p90 needs 64, p99 662, p99.9 6,636). Warm-up is not counted."
    )
    return Table("SingleStream: the next text when the last is answered", columns, tuple(rows), note)


def _server_table(report: Report, names: Mapping[str, str]) -> Table:
    rows = tuple(
        (
            title,
            count(pick(point, "rate")),
            whole_percent(pick(point, "share")),
            *(milliseconds(pick(point, "percentiles_ms", tail)) for tail in ("p50", *_TAILS)),
            words(pick(point, "meets_target")),
            count(pick(point, "queries")),
        )
        for name, title in names.items()
        for point in entries(report, "server", name, "points")
    )
    target = milliseconds(pick(report, "plan", "target_ms"))
    note = (
        "Arrivals are drawn beforehand (Poisson, open loop, one session) and latency runs from the scheduled arrival. "
        f"Meets: p99 is within {target} with 99 % confidence. Share: of what one text after another gives."
    )
    columns = ("", "texts/s", "share", "p50", *_TAILS, "meets", "answers")
    return Table("Server: texts arrive on their own schedule", columns, rows, note)


def _offline_table(report: Report, names: Mapping[str, str]) -> Table:
    rows = []
    for name, title in names.items():
        found = table_of(report, "offline", name)
        rates = [rate for rate in entries(found, "of_restarts") if isinstance(rate, int | float)]
        spread = interval(min(rates, default=None), max(rates, default=None), count)
        rows.append((title, count(found.get("per_second")), spread, count(found.get("queries"))))
    columns = ("", "texts/s", "of restarts", "texts")
    return Table("Offline: all texts at once", columns, tuple(rows), "The median over the restarts.")


def _stages_table(report: Report) -> Table:
    stages = table_of(report, "stages")
    whole = number(report, "single_stream", "bundle", "p50_interleaved_ms")
    rows = [(name, milliseconds(value)) for name, value in stages.items()]
    model = number(stages, "model")
    ratio = whole / model if whole is not None and model else None
    rows += [("text in to label out", milliseconds(whole)), ("whole over model", times(ratio))]
    return Table("Stages of an answer, p50", ("", ""), tuple(rows), "Each timed alone, in turn with the others.")


def _cold_table(report: Report) -> Table:
    cold = table_of(report, "cold_start", "bundle")
    rows = [(f"cold start: {part}", seconds(cold.get(f"{part}_s"))) for part in ("import", "load")]
    resident = number(cold, "resident_mb")
    rows += [
        ("cold start: first answer", seconds(cold.get("first_answer_s"))),
        ("cold start: total", seconds(cold.get("total_s"))),
        ("resident memory after it", data_size(None if resident is None else resident * 1e6)),
        ("model file", data_size(pick(report, "contenders", "bundle", "bytes"))),
    ]
    return Table(
        "Start and memory", ("", ""), tuple(rows), f"Medians of {count(cold.get('restarts'))} fresh processes."
    )


def _method_table(report: Report) -> Table:
    plan, control = table_of(report, "plan"), table_of(report, "control")
    rows = [
        ("load generator", words(plan.get("generator"))),
        ("fresh processes", count(plan.get("restarts"))),
        ("answers wanted of SingleStream", count(plan.get("answers"))),
        ("most seconds a scenario", shortest(plan.get("seconds"))),
        ("A/A control", interval(control.get("low"), control.get("high"), shortest)),
        ("load average before", words(pick(report, "machine", "load_average"))),
        ("load average after", words(pick(report, "load_after"))),
    ]
    for name, title in _names(report).items():
        one = table_of(report, "contenders", name)
        rows += [
            (
                title,
                f"{words(one.get('path'))}: {count(one.get('threads'))} thread(s), "
                f"{count(one.get('bulk_threads'))} offline",
            )
        ]
        rows += [(f"{title}, SHA-256 of the model", words(one.get("sha256")))] if one.get("sha256") else []
    note = "Scenarios as MLPerf Inference defines them (arXiv:1911.02549), held for less than its ten minutes."
    return Table("", ("", ""), tuple(rows), note, text_columns=2)
