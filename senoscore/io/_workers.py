"""Threads beside the caller's own, or none.

One thread means one core: a scheduler that packs jobs onto a machine counts on it. What more threads
would do beside the work is then done in turn, in the caller's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any


class InTurn(Executor):
    """Does at once what is submitted; an error waits for whoever asks for the result."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """`fn` has returned, or raised, when this returns."""
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 (as in a thread; Ctrl-C is for the caller)
            done.set_exception(error)
        return done

    def map(self, fn: Callable[..., Any], *iterables: Iterable[Any], **_: Any) -> Iterator[Any]:
        """One result when it is asked for."""
        return map(fn, *iterables)


def workers(threads: int, *, n: int | None = None, name: str = "senoscore") -> Executor:
    """Where a run of so many threads gets work done: in `n` more (default `threads`), if in any."""
    if threads <= 1:
        return InTurn()
    return ThreadPoolExecutor(threads if n is None else n, thread_name_prefix=name)
