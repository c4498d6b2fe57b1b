# SPDX-License-Identifier: Apache-2.0
"""What several test files need."""

from __future__ import annotations

import gc
import os
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import autoglm_reliability as agr

T = TypeVar("T")


def in_threads(count: int, work: Callable[[int], T]) -> list[T]:
    """Runs work(0) ... work(count - 1), each in a thread of its own, all released together."""
    barrier = threading.Barrier(count)
    results: list[Any] = [None] * count
    errors: list[BaseException] = []

    def run(index: int) -> None:
        try:
            barrier.wait()
            results[index] = work(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a thread did not end"
    if errors:
        raise errors[0]
    return results


def in_child(work: Callable[[], bytes]) -> bytes:
    """What work returns in a forked child."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            os.write(writing, work())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        data = stream.read()
    assert os.waitpid(child, 0)[1] == 0
    return data


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.001)


def answers(store: agr.Store) -> bool:
    try:
        store.ping(30)
    except agr.StoreError:
        return False
    return True


def unique() -> str:
    """A name that nobody else has."""
    return f"test-{uuid.uuid4().hex[:16]}"


def collect() -> None:
    """Lets everything go that nobody refers to."""
    for _ in range(3):
        gc.collect()
