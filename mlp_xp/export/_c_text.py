"""Names, text and arrays as C: identifiers, string literals and initializers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from mlp_xp.compiler.c_expressions import C_TYPES, c_literal
from mlp_xp.compiler.print_c import wrap

_WIDTH = 100
_PARTS = Path(__file__).with_name("c_parts")
LONGEST = 4095  # The bytes that a string literal may have in C99.
# Keywords of C99 and C++20, and macros in small letters that compilers define.
_WORDS = """
alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t char16_t
char32_t class co_await co_return co_yield compl complex concept const const_cast consteval
constexpr constinit continue decltype default delete do double dynamic_cast else enum errno
explicit export extern false far float for friend goto i386 if imaginary inline int linux long
mutable namespace near new noexcept not not_eq nullptr operator or or_eq private protected
public register reinterpret_cast requires restrict return short signed sizeof static
static_assert static_cast stderr stdin stdout struct switch template this thread_local throw
true try typedef typeid typename union unix unsigned using virtual void volatile wchar_t while
xor xor_eq
"""
RESERVED = frozenset(_WORDS.split())


def c_part(name: str, values: dict[str, Any]) -> str:
    """Return a file of the folder ``c_parts``, with values instead of its placeholders."""
    text = (_PARTS / f"{name}.c").read_text(encoding="utf-8")
    return "\n" + Template(text).substitute(values)


def identifiers(names: Sequence[str]) -> list[str]:
    """Return a different C identifier for each name, e.g. ``born_year`` for "born: year".

    Names in capitals are written in small letters, because macros have such names.
    """
    found: dict[str, None] = {}
    for name in names:
        plain = unicodedata.normalize("NFKD", name)
        plain = "".join(char for char in plain if not unicodedata.combining(char))
        plain = re.sub(r"[^A-Za-z0-9]+", "_", plain).strip("_") or "column"
        plain = plain.lower() if plain == plain.upper() else plain
        plain = f"x_{plain}" if plain[0].isdecimal() else plain
        plain = f"{plain}_" if plain in RESERVED else plain
        unique, n = plain, 1
        while unique in found:
            n += 1
            unique = f"{plain.rstrip('_')}_{n}"
        found[unique] = None
    return [*found]


def comment(text: str) -> str:
    """Return a C comment with quoted text."""
    quoted = repr(text).replace("*/", "*\\/").replace("/*", "/\\*")
    return f"/* {quoted} */"


def _char(byte: int) -> str:
    """Return a byte in a literal; octal escapes, unlike hexadecimal ones, end after 3 digits."""
    char = chr(byte)
    if char in "\"'\\?":  # Two question marks may begin a trigraph.
        return f"\\{char}"
    return char if " " <= char <= "~" else f"\\{byte:03o}"


def _encode(text: str) -> bytes:
    """Return text in UTF-8. Raise ValueError if it cannot be text in C."""
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{text!r} is not valid Unicode") from None
    if b"\0" in data:
        raise ValueError(f"{text!r} has a null character, which would end the text in C")
    return data


def _literal(data: bytes) -> str:
    """Return text as string literals of at most one line each, which C joins."""
    lines = [""]
    for char in map(_char, data):
        lines[-1] += char
        if len(lines[-1]) > _WIDTH - 20:
            lines.append("")
    return "\n        ".join(f'"{line}"' for line in lines if line or len(lines) == 1)


def literal(text: str) -> str:
    """Return a string literal in UTF-8."""
    return _literal(_encode(text))


def string_array(variable: str, texts: Sequence[str]) -> str:
    """Return the definition of a constant array of strings, in UTF-8.

    Text that is longer than a string literal may be becomes an array of characters. Raise
    ValueError if C cannot represent a text.
    """
    long, entries = [], []
    for i, data in enumerate(map(_encode, texts)):
        if len(data) < LONGEST:
            entries.append(_literal(data))
            continue
        # Escape spaces, where lines may break.
        chars = [f"'{_char(byte)}'".replace(" ", "\\040") for byte in data] + ["0"]
        entries.append(f"{variable}_{i}")
        long.append(f"static const char {entries[-1]}[] = {in_lines(chars)};\n")
    inner = ",\n        ".join(entries or ["0"])
    return (
        f"{''.join(long)}static const char *const {variable}[{len(entries) or 1}] = "
        f"{{\n        {inner}}};\n"
    )


def number_array(variable: str, values: np.ndarray, dtype: str) -> str:
    """Return the definition of a constant array of numbers; ValueError if one is too large."""
    with np.errstate(over="ignore"):
        if not np.all(np.isfinite(values.astype(dtype))):
            raise ValueError(f"{values[np.argmax(np.abs(values))]:.3g} is too large for {dtype}")
    literals = [c_literal(value, dtype) for value in values.tolist()] or ["0"]
    return f"static const {C_TYPES[dtype]} {variable}[{len(literals)}] = {in_lines(literals)};\n"


def in_lines(entries: Iterable[str]) -> str:
    """Return the initializer of an array, in lines."""
    return "\n".join(["{", *(f"    {line}" for line in wrap([*entries])), "    }"])
