# SPDX-License-Identifier: Apache-2.0
"""The corpus of the fuzzer in the repository: for each harness a file Tests/fuzz/corpus/NAME.txt with one
input a line, in base64, the shortest first.

    fuzz_corpus.py unpack NAME DIRECTORY   writes the inputs into a directory, one file each
    fuzz_corpus.py pack NAME DIRECTORY     takes the smallest set of inputs that reaches all that those in the
                                           directory and in the corpus reach; the harness is in build/fuzz
"""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def corpus(name: str) -> Path:
    return ROOT / "Tests/fuzz/corpus" / f"{name}.txt"


def unpack(name: str, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    lines = corpus(name).read_text().split() if corpus(name).exists() else []
    for data in map(base64.b64decode, lines):
        (directory / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)


def pack(name: str, found: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        seeds, chosen = Path(temporary, "seeds"), Path(temporary, "chosen")
        unpack(name, seeds)
        chosen.mkdir()
        command = [ROOT / "build/fuzz" / name, "-set_cover_merge=1", "-max_len=2048", chosen, seeds, found]
        environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
        subprocess.run(command, check=True, capture_output=True, env=environment)
        inputs = sorted((path.read_bytes() for path in chosen.iterdir()), key=lambda data: (len(data), data))
    corpus(name).parent.mkdir(parents=True, exist_ok=True)
    corpus(name).write_text("".join(base64.b64encode(data).decode() + "\n" for data in inputs))
    print(f"{name}: {len(inputs)} inputs, {sum(map(len, inputs))} bytes")


if __name__ == "__main__":
    {"pack": pack, "unpack": unpack}[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))
