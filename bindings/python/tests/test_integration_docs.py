# SPDX-License-Identifier: Apache-2.0
"""The pages of docs/integrations for clients run as they stand, from the first block to the last. Those for
servers are run by test_serving_docs.py and test_embedding_service.py."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import autoglm_reliability
from conftest import REPOSITORY
from scripted_http import Received, ScriptedServer, chunked, document

#: What it is about is the same with and without the accelerator.
pytestmark = pytest.mark.once

SERVERS = ("asgi", "embedding", "wsgi")
FOUND = sorted((REPOSITORY / "docs" / "integrations").glob("*.md"))
#: Of programs in C and C++, which CTest runs.
NATIVE = "native"
PAGES = [page for page in FOUND if page.stem not in (*SERVERS, NATIVE)]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CHOICE = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}
COMPLETION = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [CHOICE]}
PART = {
    "id": "c",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "delta": {"content": "hello"}, "finish_reason": None}],
}


def model(connection: socket.socket, request: Received) -> bool:
    """A server that speaks as much of OpenAI's protocol as the pages ask for."""
    if request.method == "GET":
        return document({"object": "list", "data": []})(connection, request)
    if request.json.get("stream"):
        return chunked(b"data: " + json.dumps(PART).encode() + b"\n\ndata: [DONE]\n\n")(connection, request)
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return document({**COMPLETION, "usage": usage})(connection, request)


def test_the_page_for_c_shows_what_the_example_does() -> None:
    page = (REPOSITORY / "docs" / "integrations" / f"{NATIVE}.md").read_text()
    example = (REPOSITORY / "examples" / "c" / "curl_multi.c").read_text()
    (block,) = re.findall(r"^```c\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert block in "\n".join(line.strip() for line in example.splitlines())


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_a_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    blocks = BLOCK.findall(page.read_text())
    assert blocks, "a page without a program is not for docs/integrations"
    program = tmp_path / f"{page.stem}_page.py"
    program.write_text("\n\n".join(blocks))
    with ScriptedServer(model) as server:
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(autoglm_reliability.__file__).parents[1]),
            "OPENAI_BASE_URL": f"{server.url}/v1",
            "OPENAI_API_KEY": "key",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LANGCHAIN_TRACING_V2": "false",
        }
        command = [sys.executable, str(program)]
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    assert server.received, "it has asked nobody"
