# SPDX-License-Identifier: Apache-2.0
"""A real model behind the middleware: the example service, in an environment of its own."""

from __future__ import annotations

import base64
import re
import signal
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from helpers import in_threads

#: What it is about is the same with and without the accelerator.
pytestmark = pytest.mark.once

REQUESTS = 30  # a minute for each API key
SENTENCES = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    run = Path(__file__).resolve().parents[3] / "examples" / "python" / "embedding" / "run"
    made = subprocess.run([run, "--install"], capture_output=True, text=True, timeout=600, check=False)
    if made.returncode != 0:
        pytest.skip(f"the model's environment cannot be made: {made.stderr.strip()[-300:]}")
    command = [run, "service.py", "--port", "0", "--requests", str(REQUESTS), "--queue", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()
        assert process.wait(60) in (0, -signal.SIGTERM)


def ask(address: str, body: Any, caller: str, key: str = "") -> httpx.Response:
    headers = {"authorization": f"Bearer {caller}"} | ({"idempotency-key": key} if key else {})
    return httpx.post(f"{address}/v1/embeddings", json=body, headers=headers, timeout=60)


def runs(address: str) -> int:
    return int(httpx.get(f"{address}/stats", timeout=60).json()["runs"])


def product(one: list[float], two: list[float]) -> float:
    return sum(x * y for x, y in zip(one, two))


def test_what_means_the_same_is_near(address: str) -> None:
    body = ask(address, {"input": SENTENCES}, "near").json()
    first, same, other = (row["embedding"] for row in body["data"])
    # As the model's authors give them, to four places.
    assert product(first, first) == pytest.approx(1, abs=1e-4)
    assert product(first, same) == pytest.approx(0.6660, abs=5e-4)
    assert product(first, other) == pytest.approx(0.1046, abs=5e-4)
    assert product(same, other) == pytest.approx(0.1411, abs=5e-4)
    assert body["usage"] == {"prompt_tokens": 25, "total_tokens": 25}
    # A text has the same vector by itself, where nothing fills it up.
    (alone,) = ask(address, {"input": SENTENCES[1]}, "near").json()["data"]
    assert alone["embedding"] == pytest.approx(same, abs=1e-4)


def test_openais_client_gets_the_same_numbers(address: str) -> None:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="sdk") as client:
        told = client.embeddings.create(model="all-MiniLM-L6-v2", input=SENTENCES)
    plain = ask(address, {"input": SENTENCES}, "sdk").json()
    packed = ask(address, {"input": SENTENCES, "encoding_format": "base64"}, "sdk").json()
    assert [row.index for row in told.data] == [0, 1, 2]
    for row, numbers, text in zip(told.data, plain["data"], packed["data"]):
        assert row.embedding == pytest.approx(numbers["embedding"], abs=1e-6)
        unpacked = struct.unpack("<384f", base64.b64decode(text["embedding"]))
        assert list(unpacked) == pytest.approx(numbers["embedding"], abs=1e-6)


def test_the_page_shows_how_to_ask(address: str, repository: Path) -> None:
    page = (repository / "docs" / "integrations" / "embedding.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert "http://127.0.0.1:8000" in program
    before = runs(address)
    names: dict[str, Any] = {}
    exec(compile(program.replace("http://127.0.0.1:8000", address), "page", "exec"), names)
    names["client"].close()
    assert runs(address) == before + 1


def test_duplicates_are_computed_once(address: str) -> None:
    before = runs(address)
    body = {"input": ["word " * 250] * 8}
    responses = in_threads(3, lambda _: ask(address, body, "twice", "same"))
    responses.append(ask(address, body, "twice", "same"))
    assert [response.status_code for response in responses] == [200] * 4
    assert len({response.content for response in responses}) == 1
    assert runs(address) == before + 1


def test_a_burst_is_refused_early_and_the_rest_is_served(address: str) -> None:
    before = runs(address)
    slow = {"input": ["word " * 250] * 16}
    responses = in_threads(16, lambda _: ask(address, slow, "burst"))
    met = Counter(response.status_code for response in responses)
    # Two have a slot, and two wait for one, unless that takes too long.
    assert set(met) == {200, 503}
    assert 2 <= met[200] <= 10
    assert runs(address) == before + met[200]
    for response in responses:
        if response.status_code == 503:
            assert response.json()["error"]["code"] == "server_overloaded"
            assert response.headers["retry-after"] == "1"


def test_a_caller_has_so_many_requests_and_no_more(address: str) -> None:
    start = time.monotonic()
    met = [ask(address, {"input": "a"}, "greedy")]
    while met[-1].status_code == 200 and len(met) < 10 * REQUESTS:
        met.append(ask(address, {"input": "a"}, "greedy"))
    # One comes back every two seconds.
    returned = (time.monotonic() - start) * REQUESTS / 60
    last = met.pop()
    assert last.status_code == 429
    assert REQUESTS <= len(met) <= REQUESTS + returned + 1
    assert 1 <= int(last.headers["retry-after"]) <= 2
    assert ask(address, {"input": "a"}, "modest").status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{", "body"),
        (b"[]", "body"),
        (b"{}", "input"),
        (b'{"input": ""}', "input"),
        (b'{"input": []}', "input"),
        (b'{"input": [1, 2]}', "input"),
        (b'{"input": "\\ud800"}', "input"),
        (b'{"input": ["' + b'a", "' * 64 + b'a"]}', "input"),
        (b'{"input": "a", "dimensions": 7}', "dimensions"),
        (b'{"input": "a", "encoding_format": "hex"}', "encoding_format"),
    ],
)
def test_what_cannot_be_embedded_is_named(address: str, body: bytes, field: str) -> None:
    before = runs(address)
    headers = {"authorization": f"Bearer bad {field}", "content-type": "application/json"}
    response = httpx.post(f"{address}/v1/embeddings", content=body, headers=headers, timeout=60)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == field
    assert runs(address) == before
