# SPDX-License-Identifier: Apache-2.0
"""A redis-server of the tests' own, on a free port of this host, which ends with them."""

from __future__ import annotations

import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from typing import Any

import autoglm_reliability as agr


class RedisServer:
    def __init__(self, *options: str) -> None:
        self._options = options
        self._directory = tempfile.TemporaryDirectory(prefix="agr-redis-")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.port: int = taken.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        """Empty, on the same port as before; returns when it listens."""
        where = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", self._directory.name]
        how = [*where, "--save", "", "--appendonly", "no", "--logfile", "log", *self._options]
        # However the tests end, it ends with them.
        self._process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "redis-server", *how])
        deadline = time.monotonic() + 20
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self._process.poll() is None, "redis-server does not start"
            assert time.monotonic() < deadline, "redis-server does not listen"
            time.sleep(0.002)

    def kill(self) -> None:
        self._process.send_signal(signal.SIGCONT)
        self._process.kill()
        self._process.wait()

    def hold_up(self) -> None:
        """Stops it in its tracks: connections stay, answers do not come."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.kill()
        self._directory.cleanup()

    def store(self, **options: Any) -> agr.RedisStore:
        """A store on it, in which calls have time enough on a busy machine."""
        return agr.RedisStore(self.address, **{"timeout": 30, **options})
