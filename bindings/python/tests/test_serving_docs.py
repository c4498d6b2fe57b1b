# SPDX-License-Identifier: Apache-2.0
"""What the pages about servers show is run."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import make_server

import autoglm_reliability as agr
from asgi_server import HOST, AsgiServer, body_of, exchange, status_of
from helpers import unique

#: What it is about is the same with and without the accelerator.
pytestmark = pytest.mark.once

PAGES = Path(__file__).resolve().parents[3] / "docs" / "integrations"
BODY = b'{"model": "m", "max_tokens": 10}'
PATHS = ["/v1/chat/completions", "/payments", "/v1/chat/completions", "/echo"]
HEADERS = [("Idempotency-Key", "k"), ("content-type", "application/json")]


def programs(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (PAGES / page).read_text(), re.MULTILINE | re.DOTALL)


def run(program: str, place: Path, region: str) -> Any:
    program = program.replace('"gateway"', repr(region)).replace("/var/lib/gateway", str(place))
    # As a module, without the tests' own settings: annotations are evaluated, as FastAPI does.
    names: dict[str, Any] = {"__name__": "application"}
    exec(compile(program, "page", "exec", dont_inherit=True), names)
    return names["app"]


@pytest.mark.parametrize("number", range(4))
def test_the_page_about_asgi(number: int, tmp_path: Path) -> None:
    region = unique()
    try:
        with AsgiServer(run(programs("asgi.md")[number], tmp_path, region)) as server:
            responses = [exchange(server.port, "POST", PATHS[number], HEADERS, BODY) for _ in range(2)]
    finally:
        agr.Region.unlink(region)
    assert [status_of(response) for response in responses] == [200, 200]
    first, second = (json.loads(body_of(response)) for response in responses)
    assert first == second
    assert (b"idempotency-replayed" in responses[1]) == (number != 2)
    if number != 1:
        assert b"ratelimit-policy" in responses[0]
    if number == 2:
        assert b'"address-requests";q=1000;w=60, "model-tokens";q=100000;w=60' in responses[1]


def test_all_programs_of_the_page_are_run() -> None:
    assert len(programs("asgi.md")) == 4
    assert len(programs("wsgi.md")) == 1


def test_the_page_about_wsgi(tmp_path: Path) -> None:
    app = run(programs("wsgi.md")[0], tmp_path, "")
    server = make_server(HOST, 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        responses = [exchange(server.server_port, "POST", "/echo", HEADERS, BODY) for _ in range(2)]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert [json.loads(body_of(response)) for response in responses] == [{"key": "k"}] * 2
    assert b"idempotency-replayed: true" in responses[1]
