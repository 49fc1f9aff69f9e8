"""Tasks that somebody looks after: kept while they run, logged when they fail, ended with their owner."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Tasks:
    """The tasks of one owner."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._ending: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start a task and keep it; an exception nobody awaits is logged under `name`."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        self._ending.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("Task %s failed", task.get_name(), exc_info=error)

    def end(self, task: asyncio.Task[Any]) -> None:
        """Cancel one of these tasks. Once: a second cancel would interrupt the clean-up that the first one began."""
        if task in self._running and task not in self._ending:
            self._ending.add(task)
            task.cancel()

    async def cancel(self, patience: float = 5) -> None:
        """Cancel every task and wait for their ends, at most `patience` seconds."""
        for task in self._running:
            self.end(task)
        if self._running:
            await asyncio.wait(set(self._running), timeout=patience)


async def within(
    seconds: float, coroutine: Coroutine[Any, Any, T], *, keeper: Tasks, name: str, undo: Callable[[T], object]
) -> T:
    """Return what `coroutine` returns, or raise TimeoutError after `seconds` without cancelling it.

    For requests whose answer changes something at the other end: when one comes too late, or when the caller was
    cancelled, the coroutine runs on under `keeper` and `undo` is called with its result.
    """
    task = keeper.spawn(_outcome(coroutine), name)
    try:
        # Not wait_for(): Python 3.11's returns the result to a caller that was cancelled in that moment.
        async with asyncio.timeout(seconds):
            value, error = await asyncio.shield(task)
    except (TimeoutError, asyncio.CancelledError):
        # Called in the loop's next turn if the task is done already.
        task.add_done_callback(lambda late: _undo_late(late, undo))
        raise
    if error is not None:
        raise error
    return cast(T, value)


async def _outcome(coroutine: Coroutine[Any, Any, T]) -> tuple[T | None, Exception | None]:
    # An exception after the caller gave up is no error of ours, so it must not reach the task's log.
    try:
        return await coroutine, None
    except Exception as error:
        return None, error


def _undo_late(task: asyncio.Task[tuple[T | None, Exception | None]], undo: Callable[[T], object]) -> None:
    if task.cancelled():
        return
    value, error = task.result()
    if error is None:
        undo(cast(T, value))
