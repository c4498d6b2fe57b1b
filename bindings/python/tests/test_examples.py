# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from redis_server import RedisServer

#: What it is about is the same with and without the accelerator.
pytestmark = pytest.mark.once


def run(program: Path, *arguments: str) -> str:
    command = [sys.executable, "-W", "error", str(program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.fixture
def examples(repository: Path) -> Path:
    return repository / "examples" / "python"


def test_the_blocking_example_does_what_it_says(examples: Path) -> None:
    told = run(examples / "retry_sync.py")
    assert told.count("hello from request 3") == 2
    assert "400 no such model" in told
    assert "refused by the limiter" in told
    assert told.count("event: {") == 2


def test_the_workers_share_their_budget(examples: Path) -> None:
    told = run(examples / "workers_sharing_a_budget.py")
    assert told.count(" calls, ") == 7
    assert "1 of 8 workers was killed" in told
    assert "within the budget: True" in told
    assert "still open: 1 reservation(s)" in told


def test_the_hosts_share_their_budget(examples: Path, redis: RedisServer) -> None:
    told = run(examples / "hosts_sharing_a_budget.py", redis.address)
    assert told.count(" calls, ") == 7
    assert "host 0, worker 0" not in told
    assert "within the budget: True" in told
    assert "hosts that write the report: 1" in told


def test_the_gateway_does_what_it_says(examples: Path) -> None:
    told = run(examples / "gateway_asyncio.py")
    assert "Counter({'answered': 10})" in told
    assert "Counter({'THE SAME': 5})" in told
    assert "executed it 1 time(s)" in told
    assert "8 answered, 2 limited" in told
    assert "PROMPT 3" in told
    assert "1 from the cache" in told
