#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes what Tests/c/arguments.c knows of the C headers: every function with the names and kinds of
its parameters, every structure with the places of its fields.

    generate_arguments.py OUTPUT
"""

from __future__ import annotations

import sys
from pathlib import Path

from header_model import Headers, Struct, read_headers

ROOT = Path(__file__).resolve().parent.parent
NUMBERS = {
    "c_int32": "KIND_I32",
    "c_uint32": "KIND_U32",
    "c_int64": "KIND_I64",
    "c_uint64": "KIND_U64",
    "c_size_t": "KIND_SIZE",
    "c_double": "KIND_DOUBLE",
}
# The model knows a handle as a pointer; its name says of what kind.
HANDLES = {"idempotency", "breaker", "budget", "limiters", "limiter", "cache", "policy", "call", "store"}
HANDLES |= {"region", "lock"}
BYTES = {"key", "fingerprint", "data", "cache_key", "result", "trace_id", "text", "fallback_data"}
BYTES |= {"user_data", "buffer", "self", "space", "context", "name"}


class Unknown(Exception):
    """A type that the test has no bad values for."""


class Table:
    def __init__(self, headers: Headers) -> None:
        self.headers = headers
        self.structs = {struct.name: index for index, struct in enumerate(headers.structs)}
        self.callbacks = {name for name, _, _ in headers.callbacks}

    def kind(self, name: str, ctype: str) -> tuple[str, int]:
        """The kind of a value, and the structure that it is or points to."""
        if ctype in NUMBERS:
            return NUMBERS[ctype], -1
        if ctype in self.callbacks:
            return "KIND_CALLBACK", -1
        if ctype in ("c_void_p", "c_char_p"):
            if name in HANDLES and ctype == "c_void_p":
                return "KIND_HANDLE", -1
            if name in BYTES:
                return "KIND_BYTES", -1
        if ctype.startswith("POINTER("):
            target = ctype[len("POINTER(") : -1]
            if target in self.structs:
                return "KIND_STRUCT", self.structs[target]
            if target == "c_void_p" or target in NUMBERS:
                return "KIND_SCALAR", -1
        raise Unknown(f"{ctype} {name}")

    def fields(self, struct: Struct, prefix: str = "") -> list[str]:
        lines = []
        for name, ctype in struct.fields:
            base, _, count = ctype.ctypes.partition(" * ")
            path = prefix + name
            if base in self.structs:
                lines += self.fields(self.headers.structs[self.structs[base]], f"{path}.")
            elif base != "c_char":
                kind, target = self.kind(name, base)
                lines.append(f'"{path}", {kind}, {target}, {count or 1}')
        return lines

    def text(self) -> str:
        lines = ["/* Made from the headers by scripts/generate_arguments.py. */", ""]
        for struct in self.headers.structs:
            lines.append(f"static const struct field fields_of_{struct.name}[] = {{")
            for field in self.fields(struct):
                path = field.split('"')[1]
                lines.append(f"  {{{field}, offsetof({struct.name}, {path})}},")
            lines.append("};")
        lines += ["", "static const struct structure structures[] = {"]
        for struct in self.headers.structs:
            count = len(self.fields(struct))
            sized = int(struct.fields[0][0] == "struct_size")
            lines.append(
                f'  {{"{struct.name}", sizeof({struct.name}), {sized}, {count}, fields_of_{struct.name}}},'
            )
        lines += ["};", ""]
        for function in self.headers.functions:
            if function.arguments:
                lines.append(f"static const struct parameter parameters_of_{function.name}[] = {{")
                for name, ctype in function.arguments:
                    kind, target = self.kind(name, ctype)
                    lines.append(f'  {{"{name}", {kind}, {target}}},')
                lines.append("};")
        lines += ["", "static const struct function functions[] = {"]
        for function in self.headers.functions:
            results = {"None": "RESULT_NONE", "c_char_p": "RESULT_TEXT"}
            wide = function.result in ("c_int64", "c_uint64")
            result = results.get(function.result, "RESULT_NUMBER" if wide else "RESULT_STATUS")
            parameters = f"parameters_of_{function.name}" if function.arguments else "NULL"
            lines.append(f'  {{"{function.name}", {result}, {len(function.arguments)}, {parameters}}},')
        return "\n".join([*lines, "};", ""])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(Table(read_headers(ROOT / "include")).text(), encoding="utf-8")
