"""onnxruntime sessions for answering on a CPU: one for a text at a time, one a core for many batches.

Knows nothing of texts. A session that runs on one thread gives the same bits for the same input, whatever the
other sessions are doing.
"""

import queue
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import onnxruntime
from onnxruntime import InferenceSession, RunOptions

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

# Its kernel took 2 to 4 times as long as the addition and the normalisation that it replaces: see LOG.md.
_SLOWER_FUSIONS = ["SkipLayerNormFusion"]
Job = TypeVar("Job")
Result = TypeVar("Result")


def open_session(model: Path | bytes, threads: int) -> InferenceSession:
    """Open a model (path or content) on the CPU; raises what onnxruntime raises, which has no common base.

    Several `threads` share each operator of a run. They spin while it lasts: to wake one takes about as long as its
    share of a short text, dozens of times a run. Between runs none spins.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if threads > 1 else "0")
    # Spinning on for the next run would burn several times the processor time of the answer itself.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return InferenceSession(
        model, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(_SLOWER_FUSIONS)
    )


def shrinking() -> RunOptions:
    """Return options for a long call, after which its scratch memory is given back instead of kept for ever."""
    options = RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


class SessionPool:
    """As many single-threaded sessions of one model as there may be threads, opened at first use.

    Sessions of several threads would share each product among cores and wait for each other at its end.
    """

    def __init__(self, model: Path | bytes, threads: int) -> None:
        """Remember what to open."""
        self._model = model
        self._threads = threads
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._idle: queue.SimpleQueue[InferenceSession] = queue.SimpleQueue()

    def run(self, answer: Callable[[InferenceSession, Job], Result], jobs: Iterable[Job]) -> list[Result]:
        """Return `answer` of a session and each job, in the order of the jobs."""
        executor = self._opened()
        waiting: queue.SimpleQueue[tuple[int, Job] | None] = queue.SimpleQueue()
        for each in (*enumerate(jobs), *[None] * self._threads):
            waiting.put(each)
        done: dict[int, Result] = {}

        def work() -> None:
            session = self._idle.get()
            try:
                for place, job in iter(waiting.get, None):
                    done[place] = answer(session, job)
            except BaseException:
                for _ in iter(waiting.get, None):
                    pass  # nobody waits for the other answers any more
                raise
            finally:
                self._idle.put(session)

        for worker in [executor.submit(work) for _ in range(self._threads)]:
            worker.result()
        return [done[place] for place in range(len(done))]

    def _opened(self) -> "ThreadPoolExecutor":
        with self._lock:
            if self._executor is None:
                from concurrent.futures import ThreadPoolExecutor  # who answers one text at a time needs none

                for _ in range(self._threads):
                    self._idle.put(open_session(self._model, threads=1))
                self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix="potstill")
            return self._executor
