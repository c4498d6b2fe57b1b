# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from hypothesis import HealthCheck, settings

from autoglm_reliability import RedisStore
from autoglm_reliability.testing import ManualClock
from calling import Caller, quick
from helpers import unique
from redis_server import RedisServer

# A failure prints how to repeat it; two cores of a busy machine are slow enough to need no deadline.
settings.register_profile(
    "default",
    deadline=None,
    print_blob=True,
    max_examples=int(os.environ.get("AGR_EXAMPLES", "60")),
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("default")

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def _shared_redis() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture
def redis(_shared_redis: RedisServer) -> RedisServer:
    """One for all tests, which take a prefix each."""
    return _shared_redis


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """One for a test which does something to it."""
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture
def store(redis: RedisServer) -> Iterator[RedisStore]:
    with redis.store(prefix=unique()) as store:
        yield store


@pytest.fixture
def stores(redis: RedisServer) -> Iterator[tuple[RedisStore, RedisStore]]:
    prefix = unique()
    with redis.store(prefix=prefix) as one, redis.store(prefix=prefix) as two:
        yield one, two


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(kind: str) -> Iterator[Callable[..., Caller]]:
    made: list[Caller] = []

    def one(**options: Any) -> Caller:
        made.append(Caller(kind, **options))
        return made[-1]

    yield one
    for caller in made:
        caller.close()


@pytest.fixture
def caller(make: Callable[..., Caller], clock: ManualClock) -> Caller:
    return make(policy=quick(clock))


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, chain = folder / "key.pem", folder / "chain.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(chain)]
    subprocess.run(command, check=True, capture_output=True)
    return key, chain
