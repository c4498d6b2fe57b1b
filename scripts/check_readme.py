"""Builds and runs the snippets of README.md, so that they stay true.

    check_readme.py CC CXX BUILD_DIRECTORY
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

C = """
{includes}
int main(void) {{
{body}
  agr_limiter_destroy(limiter);
  return 0;
}}
"""

CXX = """
{includes}
static bool call_the_model() {{ return true; }}
static void refuse(std::chrono::nanoseconds) {{}}
int main() {{
{body}
  return breaker->snapshot().window_total == 1 ? 0 : 1;
}}
"""

PYTHON = """
import asyncio
{includes}
request_id = "one"
executed = []

async def ask_the_model(attempt):
    executed.append(attempt)
    return b"answer"

async def main():
{body}
    assert answer == b"answer" and len(executed) == 1
    assert await policy.execute_async(ask_the_model, key=request_id) == b"answer" and len(executed) == 1

asyncio.run(main())
"""


def snippet(language: str) -> tuple[str, str]:
    """The includes or imports of a block, and the rest."""
    block = re.search(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    if block is None:
        raise SystemExit(f"README.md has no {language} block")
    lines = block.group(1).splitlines()
    head = [line for line in lines if line.startswith(("#include", "from ", "import "))]
    return "\n".join(head), "\n".join(line for line in lines if line not in head)


def compiled(compiler: str, standard: str, suffix: str, text: str, build: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory, "snippet" + suffix)
        source.write_text(text)
        program = str(Path(directory, "program"))
        includes = ["-I", str(ROOT / "include"), "-I", str(ROOT / "bindings/cpp")]
        link = [f"-L{build}", "-lautoglm_reliability", f"-Wl,-rpath,{build}"]
        warnings = ["-Wall", "-Wextra", "-Werror"]
        command = [compiler, f"-std={standard}", *warnings, *includes, str(source), "-o", program, *link]
        subprocess.run(command, check=True)
        subprocess.run([program], check=True)


def main(cc: str, cxx: str, build: str) -> int:
    includes, body = snippet("c")
    compiled(cc, "c99", ".c", C.format(includes=includes, body=textwrap.indent(body, "  ")), build)
    includes, body = snippet("cpp")
    compiled(cxx, "c++17", ".cpp", CXX.format(includes=includes, body=textwrap.indent(body, "  ")), build)
    includes, body = snippet("python")
    text = PYTHON.format(includes=includes, body=textwrap.indent(body, "    "))
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "bindings/python/src"),
        "AUTOGLM_RELIABILITY_LIB": str(Path(build, "libautoglm_reliability.so")),
    }
    subprocess.run([sys.executable, "-c", text], check=True, env=environment)
    print("README.md: the C, C++ and Python snippets run")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
