"""Keep doubtful texts for the next training: sampled, redacted, bounded, and written off the request's way.

Each worker appends JSON lines to a file of its own. Lines, not parquet: a killed server loses at most the line it was
writing, and pyarrow is larger than all that serving needs; `distill collect` makes the parquet pool where training
happens.
"""

import hashlib
import json
import logging
import os
import queue
import threading
import time
from typing import Any, TextIO

from export.doubt_settings import CaptureSettings
from export.serve_hooks import Answer

logger = logging.getLogger("potstill.serve")
SUFFIX = ".captured.jsonl"
_MOST_WAITING = 10_000  # texts; more than that is dropped rather than held in memory


class CapturePool:
    """The captured texts of one worker; safe to offer to from the event loop.

    One that is full stays full: collect the folder and start the server again.
    """

    def __init__(self, settings: CaptureSettings, workers: int = 1) -> None:
        """Make the folder; raise ExportError when the redaction cannot be loaded, OSError when nothing can be written.

        Each of `workers` may fill its share of `max_bytes`.
        """
        self._redact = settings.load_redact()
        self._share = settings.share
        settings.folder.mkdir(parents=True, exist_ok=True)
        held = sum(path.stat().st_size for path in settings.folder.glob(f"*{SUFFIX}"))
        self._most_bytes = max(settings.max_bytes - held, 0) // workers
        self._path = settings.folder / f"{os.getpid()}-{time.time_ns()}{SUFFIX}"
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(_MOST_WAITING)
        self._is_full = False
        self._writer = threading.Thread(target=self._write, name="capture", daemon=True)
        self._writer.start()

    def offer(self, answer: Answer, model: str) -> None:
        """Queue an answer if its text is in the sample; the same text always is, or never."""
        if _place(answer.text) >= self._share or self._is_full:
            return
        student = answer.source in ("student", "fallback")
        row = {
            "text": answer.text,
            "answer": answer.prediction.label,
            "answered_by": "student" if student else answer.source,
            "certainty": answer.certainty,
            "model": model,
            "captured": time.time(),
        }
        try:
            self._waiting.put_nowait(row)
        except queue.Full:
            logger.warning("capture: more than %d texts wait to be written; one is dropped", _MOST_WAITING)

    def close(self) -> None:
        """Write what is queued."""
        self._waiting.put(None)
        self._writer.join()

    def _write(self) -> None:
        file: TextIO | None = None
        written = 0
        while (row := self._waiting.get()) is not None:
            line = self._line(row)
            if line is None or self._is_full:
                continue
            written += len(line.encode())
            if written > self._most_bytes:
                logger.warning(
                    "capture: %s is full, nothing more is kept until it is collected and the server restarted",
                    self._path.parent,
                )
                self._is_full = True
                continue
            try:
                file = file or self._path.open("w", encoding="utf-8", buffering=1)
                file.write(line)
            except OSError as error:
                logger.error("capture: %s cannot be written (%s), nothing more is kept", self._path, error)
                self._is_full = True
        if file is not None:
            file.close()

    def _line(self, row: dict[str, Any]) -> str | None:
        if self._redact is not None:
            try:
                text = self._redact(row["text"])
            except Exception:  # the operator's code; a text that it fails on must not be kept as it is
                logger.exception("capture: the redaction failed; the text is dropped")
                return None
            if not isinstance(text, str):
                return None
            row = row | {"text": text}
        return json.dumps(row, ensure_ascii=False) + "\n"


def _place(text: str) -> float:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
