# SPDX-License-Identifier: Apache-2.0
"""What the C headers declare, as plain data: constants, structures, functions.

The headers are preprocessed by the system's C compiler and parsed by pycparser. Two things are lost
on that way and read from the text itself: the numeric #defines, and whether a function's comment
says that it blocks.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from pycparser import c_ast, c_parser

UMBRELLA = "autoglm_reliability.h"

# All that the headers use of the C library. The real ones are full of compiler extensions.
STAND_INS = {
    "stddef.h": "typedef unsigned long size_t;\n",
    "stdint.h": "".join(
        f"typedef {base} {sign}int{bits}_t;\n"
        for bits, width in ((8, "char"), (16, "short"), (32, "int"), (64, "long"))
        for sign, base in (("", f"signed {width}"), ("u", f"unsigned {width}"))
    ),
}

SCALARS = {
    "int32_t": ("c_int32", "int"),
    "uint32_t": ("c_uint32", "int"),
    "int64_t": ("c_int64", "int"),
    "uint64_t": ("c_uint64", "int"),
    "size_t": ("c_size_t", "int"),
    "double": ("c_double", "float"),
    "char": ("c_char", "bytes"),
}


@dataclass(frozen=True)
class CType:
    """How ctypes spells a type, and what Python sees when it reads a field of it."""

    ctypes: str
    python: str


@dataclass(frozen=True)
class Struct:
    name: str
    fields: list[tuple[str, CType]]


@dataclass(frozen=True)
class Function:
    name: str
    result: str
    arguments: list[tuple[str, str]]
    blocks: bool


@dataclass
class Headers:
    constants: list[tuple[str, int]] = field(default_factory=list)
    structs: list[Struct] = field(default_factory=list)
    callbacks: list[tuple[str, str, list[str]]] = field(default_factory=list)
    types: list[str] = field(default_factory=list)  # structs and callbacks, in their order
    functions: list[Function] = field(default_factory=list)


class HeaderError(Exception):
    """A declaration of a kind that the binding cannot express."""


# Headers of the stores, each of a library of its own, which the umbrella does not include.
STORES = ("sqlite", "redis")


def read_store(include: Path, name: str) -> Headers:
    """What the header of a store declares beyond what the library's own headers do."""
    path = include / "autoglm_reliability" / f"{name}.h"
    both, own = Headers(), read_headers(include)
    reader = _Reader(both, _blocking(path.read_text(encoding="utf-8")))
    for declaration in parse(include, f"autoglm_reliability/{name}.h"):
        reader.read(declaration)
    known = set(own.types) | {function.name for function in own.functions}
    return Headers(
        constants=[constant for constant in both.constants if constant not in own.constants],
        structs=[struct for struct in both.structs if struct.name not in known],
        types=[name for name in both.types if name not in known],
        functions=[function for function in both.functions if function.name not in known],
    )


def read_headers(include: Path) -> Headers:
    folder = include / "autoglm_reliability"
    sources = sorted(path for path in folder.glob("*.h") if path.stem not in STORES)
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    headers = Headers(constants=_defines(text))
    reader = _Reader(headers, _blocking(text))
    for declaration in parse(include):
        reader.read(declaration)
    return headers


def parse(include: Path, header: str = UMBRELLA) -> list[c_ast.Node]:
    """The declarations of a header and all that it includes, in their order."""
    return c_parser.CParser().parse(_preprocess(include, header), header).ext


def _preprocess(include: Path, header: str) -> str:
    with tempfile.TemporaryDirectory() as stand_ins:
        for name, text in STAND_INS.items():
            Path(stand_ins, name).write_text(text, encoding="utf-8")
        command = ["cc", "-E", "-P", "-nostdinc", "-I", stand_ins, "-I", str(include)]
        command.append(str(include / header))
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        return run.stdout


def _defines(text: str) -> list[tuple[str, int]]:
    pattern = r"^#define (AGR_\w+) (?:U?INT(?:32|64)_C\()?(-?(?:0x[0-9a-fA-F]+|\d+))\)?\s*(?:/\*.*)?$"
    return [(name, int(value, 0)) for name, value in re.findall(pattern, text, re.MULTILINE)]


def _blocking(text: str) -> set[str]:
    """The functions whose own comment has a sentence "Blocks"."""
    pattern = r"/\*((?:[^*]|\*(?!/))*)\*/\s*agr_status (agr_\w+)\("
    return {name for comment, name in re.findall(pattern, text) if re.search(r"\bBlocks\b", comment)}


class _Reader:
    def __init__(self, headers: Headers, blocking: set[str]) -> None:
        self.headers = headers
        self.blocking = blocking
        self.opaque: set[str] = set()
        self.aliases: dict[str, CType] = {n: CType(c, p) for n, (c, p) in SCALARS.items()}

    def read(self, node: c_ast.Node) -> None:
        if isinstance(node, c_ast.Typedef):
            self._typedef(node)
        elif isinstance(node, c_ast.Decl) and isinstance(node.type, c_ast.Enum):
            self._enum(node.type)
        elif is_function(node):
            self._function(node.name, node.type)
        else:
            raise HeaderError(f"cannot read {node}")

    def _typedef(self, node: c_ast.Typedef) -> None:
        target = node.type
        if isinstance(target, c_ast.PtrDecl) and isinstance(target.type, c_ast.FuncDecl):
            arguments = [self._argument(p)[1] for p in target.type.args.params]
            result = self._type(target.type.type, parameter=True)
            self.headers.callbacks.append((node.name, result.ctypes, arguments))
            self.headers.types.append(node.name)
            self.aliases[node.name] = CType(node.name, "object")
        elif isinstance(target.type, c_ast.Struct):
            if target.type.decls is None:
                self.opaque.add(node.name)
            else:
                fields = [(d.name, self._type(d.type)) for d in target.type.decls]
                self.headers.structs.append(Struct(node.name, fields))
                self.headers.types.append(node.name)
                self.aliases[node.name] = CType(node.name, node.name)
        elif node.name not in SCALARS:
            self.aliases.setdefault(node.name, self._named(target.type))

    def _named(self, node: c_ast.IdentifierType) -> CType:
        name = " ".join(node.names)
        if name in self.aliases:
            return self.aliases[name]
        if name in ("unsigned long", "signed char", "unsigned char"):
            return CType(name, "int")
        if name.split()[0] in ("signed", "unsigned"):
            return CType(name, "int")
        raise HeaderError(f"unknown type {name}")

    def _enum(self, node: c_ast.Enum) -> None:
        value = -1
        for item in node.values.enumerators:
            value = value + 1 if item.value is None else self._evaluate(item.value)
            self.headers.constants.append((item.name, value))

    def _function(self, name: str, node: c_ast.FuncDecl) -> None:
        params = [p for p in node.args.params if not _is_void(p.type)] if node.args else []
        result = self._type(node.type, parameter=True).ctypes
        arguments = [self._argument(p) for p in params]
        self.headers.functions.append(Function(name, result, arguments, name in self.blocking))

    def _argument(self, node: c_ast.Decl) -> tuple[str, str]:
        return node.name, self._type(node.type, parameter=True).ctypes

    def _type(self, node: c_ast.Node, *, parameter: bool = False) -> CType:
        if isinstance(node, c_ast.ArrayDecl):
            item, count = self._type(node.type), self._evaluate(node.dim)
            python = "bytes" if item.ctypes == "c_char" else f"Array[{item.ctypes}]"
            return CType(f"{item.ctypes} * {count}", python)
        if isinstance(node, c_ast.PtrDecl):
            return self._pointer(node.type)
        if _is_void(node) and parameter:
            return CType("None", "None")
        return self._named(node.type)

    def _pointer(self, target: c_ast.Node) -> CType:
        if isinstance(target, c_ast.PtrDecl):
            return CType(f"POINTER({self._pointer(target.type).ctypes})", "object")
        if _is_void(target):
            return CType("c_void_p", "int | None")
        name = " ".join(target.type.names)
        if name in self.opaque:
            return CType("c_void_p", "int | None")
        if name == "char":
            return CType("c_char_p", "bytes | None")
        return CType(f"POINTER({self._named(target.type).ctypes})", "object")

    def _evaluate(self, node: c_ast.Node) -> int:
        if isinstance(node, c_ast.Constant):
            return int(node.value, 0)
        if isinstance(node, c_ast.UnaryOp) and node.op == "-":
            return -self._evaluate(node.expr)
        raise HeaderError(f"not a number: {node}")


def is_function(node: c_ast.Node) -> bool:
    return isinstance(node, c_ast.Decl) and isinstance(node.type, c_ast.FuncDecl)


def _is_void(node: c_ast.Node) -> bool:
    return (
        isinstance(node, c_ast.TypeDecl)
        and isinstance(node.type, c_ast.IdentifierType)
        and node.type.names == ["void"]
    )
