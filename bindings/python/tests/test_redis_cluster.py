# SPDX-License-Identifier: Apache-2.0
"""Several limiters as one on a Redis cluster: their names share a tag, or it is said that they must."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator

import pytest

import autoglm_reliability as agr
from helpers import eventually
from redis_server import RedisServer
from stored import HOUR


@pytest.fixture
def cluster() -> Iterator[RedisServer]:
    """Of one server, which has all slots: keys of several are refused by it as by any other cluster."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bus = str(taken.getsockname()[1])
    server = RedisServer("--cluster-enabled", "yes", "--cluster-port", bus)

    def ask(*words: str) -> str:
        command = ["redis-cli", "-p", str(server.port), "cluster", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    ask("addslotsrange", "0", "16383")
    eventually(lambda: "cluster_state:ok" in ask("info"), "the cluster is made")
    yield server
    server.close()


def test_limiters_with_one_tag_are_one(cluster: RedisServer) -> None:
    def limiter(name: str, capacity: int) -> agr.RateLimiter:
        return agr.RateLimiter(capacity, 1, HOUR, scope=store, name=name)

    with cluster.store() as store:
        requests, tokens = limiter("requests{tenant-7}", 10), limiter("tokens{tenant-7}", 100)
        assert agr.try_acquire_all([(requests, 1), (tokens, 60)])
        assert not agr.try_acquire_all([(requests, 1), (tokens, 60)])
        assert (requests.available, tokens.available) == (9, 40)
        with agr.Policy(limiters=[requests, tokens]) as policy:
            assert policy.execute(lambda attempt: "done", costs=[1, 30]) == "done"
            with pytest.raises(agr.RateLimited):
                policy.execute(lambda attempt: "done", costs=[1, 30])
        assert (requests.available, tokens.available) == (8, 10)
        # Others are not, and this server has named no second one, by which it would be known for a cluster.
        apart = [limiter("requests", 10), limiter("tokens", 100)]
        with pytest.raises(agr.ArgumentError, match="tag") as refused:
            agr.try_acquire_all([(one, 1) for one in apart])
        assert refused.value.field == "demands.limiter"
        with agr.Policy(limiters=apart) as policy, pytest.raises(agr.ArgumentError, match="tag"):
            policy.execute(lambda attempt: "done", costs=[1, 1])
    with agr.RedisStore(f"{cluster.address},{cluster.address}", timeout=30) as store:
        with pytest.raises(agr.ArgumentError, match="tag") as refused:
            agr.Policy(limiters=[limiter("requests", 10), limiter("tokens", 100)])
        assert refused.value.field == "limiters"
        with pytest.raises(agr.ArgumentError, match="name"):
            limiter("{tenant-7}", 10)
