from __future__ import annotations

import asyncio

import pytest

from forwards.engine.tasks import Tasks, within


async def test_a_task_is_kept_while_it_runs_and_let_go_after() -> None:
    tasks = Tasks()
    go = asyncio.Event()
    task = tasks.spawn(go.wait(), "one")

    assert len(tasks) == 1
    go.set()
    await task
    await asyncio.sleep(0)
    assert len(tasks) == 0


async def test_a_failure_nobody_awaits_is_logged_with_the_name_of_its_task(caplog) -> None:
    async def fail() -> None:
        raise ValueError("deep trouble")

    tasks = Tasks()
    await asyncio.wait({tasks.spawn(fail(), "digging")})
    await asyncio.sleep(0)

    assert "digging" in caplog.text
    assert "deep trouble" in caplog.text


async def test_cancel_waits_until_every_task_has_cleaned_up() -> None:
    cleaned = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    tasks = Tasks()
    for number in range(3):
        tasks.spawn(work(), f"{number}")
    await asyncio.sleep(0)
    await tasks.cancel()

    assert cleaned == [True] * 3


async def test_cancelling_twice_does_not_interrupt_a_clean_up() -> None:
    """Who stops and is told to stop again still has to close what it holds."""
    cleaned = asyncio.Event()
    cleaning = asyncio.Event()
    finish = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await finish.wait()
            cleaned.set()

    tasks = Tasks()
    task = tasks.spawn(work(), "work")
    await asyncio.sleep(0)
    tasks.end(task)
    await cleaning.wait()
    tasks.end(task)
    ending = asyncio.ensure_future(tasks.cancel())
    await asyncio.sleep(0)
    finish.set()
    await ending

    assert cleaned.is_set()


async def test_cancel_gives_up_after_its_patience() -> None:
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    tasks = Tasks()
    task = tasks.spawn(stubborn(), "stubborn")
    await asyncio.sleep(0)
    await tasks.cancel(patience=0.01)

    assert not task.done()
    release.set()
    await task


async def test_within_returns_a_result_that_comes_in_time() -> None:
    assert await within(5, asyncio.sleep(0, "done"), keeper=Tasks(), name="x", undo=pytest.fail) == "done"


async def test_within_raises_what_the_coroutine_raises_and_logs_nothing(caplog) -> None:
    async def fail() -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        await within(5, fail(), keeper=Tasks(), name="x", undo=pytest.fail)
    assert caplog.text == ""


async def test_an_answer_that_comes_too_late_is_undone() -> None:
    answer = asyncio.Event()
    undone: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def ask() -> str:
        await answer.wait()
        return "late"

    with pytest.raises(TimeoutError):
        await within(0, ask(), keeper=Tasks(), name="x", undo=undone.set_result)
    answer.set()

    assert await undone == "late"


async def test_an_answer_for_a_caller_that_was_cancelled_is_undone() -> None:
    answer = asyncio.Event()
    undone: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def ask() -> str:
        await answer.wait()
        return "late"

    tasks = Tasks()
    caller = tasks.spawn(within(60, ask(), keeper=tasks, name="x", undo=undone.set_result), "caller")
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait({caller})
    assert caller.cancelled()
    answer.set()

    assert await undone == "late"


async def test_a_caller_cancelled_in_the_moment_of_the_answer_ends_and_the_answer_is_undone() -> None:
    undone: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def ask() -> str:
        return await answer

    tasks = Tasks()
    caller = tasks.spawn(within(60, ask(), keeper=tasks, name="asked", undo=undone.set_result), "caller")
    await asyncio.sleep(0)
    asked = next(task for task in asyncio.all_tasks() if task.get_name() == "asked")
    # Right after the request has ended, before the caller has had its turn.
    asked.add_done_callback(lambda _: caller.cancel())
    answer.set_result("just so")
    await asyncio.wait({caller})

    assert caller.cancelled()
    assert await undone == "just so"


async def test_a_late_failure_harms_nobody(caplog) -> None:
    answer = asyncio.Event()

    async def ask() -> None:
        await answer.wait()
        raise OSError("too late to matter")

    tasks = Tasks()
    with pytest.raises(TimeoutError):
        await within(0, ask(), keeper=tasks, name="x", undo=pytest.fail)
    answer.set()
    await tasks.cancel()

    assert caplog.text == ""
