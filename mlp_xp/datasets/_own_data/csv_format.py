"""The format of a CSV file: separator, decimal point and encoding."""

import codecs
import re
from collections.abc import Callable
from pathlib import Path

from mlp_xp._utils.dataclass import dataclass
from mlp_xp.datasets._dataset import DatasetError

_SEPARATORS = ";\t,|"  # In order of preference, because numbers and names may have commas.
_HEAD, _BLOCK = 4096, 1 << 16  # Bytes to look at for UTF-16, and to decode at once.
_MARKS = {  # UTF-32 comes first, because its mark begins with the mark of UTF-16.
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_WESTERN = "cp1252"  # A superset of the printable characters of Latin-1.
_NOTE = f"read as {_WESTERN} (Western European), not UTF-8: to read it as another, set --encoding"


@dataclass(frozen=True)
class CsvFormat:
    """How a CSV file is written; the separator and the encoding are recognized if None.

    Raise DatasetError for invalid values.
    """

    separator: str | None = None
    decimal: str | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        """Check the values, since they may come from a user or from a damaged run folder."""
        separator, decimal, encoding = self.separator, self.decimal, self.encoding
        is_one = isinstance(separator, str) and len(separator) == 1 and separator not in '"\r\n'
        if separator is not None and not is_one:
            raise DatasetError(
                f"--separator must be one character, such as ';' or '\\t', got {separator!r}"
            )
        if decimal not in (None, ".", ","):
            raise DatasetError(f"--decimal must be '.' or ',', got {decimal!r}")
        if separator is not None and separator == decimal:
            raise DatasetError(
                f"--separator and --decimal must differ, got {separator!r} for both: columns are "
                "usually separated by ';' if commas are decimal points"
            )
        if encoding is not None:
            try:
                " ".encode(encoding)
            except (LookupError, TypeError, ValueError) as error:
                raise DatasetError(
                    f"unknown encoding {encoding!r}: set --encoding to utf-8, utf-16, cp1252 "
                    "(Western European), cp1250 (Central European) or another one that Python knows"
                ) from error

    def refuse(self, path: Path) -> None:
        """Raise DatasetError if a value is set, because the path is not a CSV file."""
        for name, value in vars(self).items():
            if value is not None:
                raise DatasetError(f"{path}: leave out --{name} {value}, which is for .csv files")

    @property
    def number(self) -> Callable[[str], float]:
        """The function that parses a number, or raises ValueError."""
        return number_with_comma if self.decimal == "," else float

    def text(self, value: float) -> str:
        """Return a number as text with the file's decimal point; equal numbers give equal texts."""
        text = f"{value:.15g}"
        return text.replace(".", ",") if self.decimal == "," else text

    def decimal_hint(self, commas: str) -> str:
        """Return what to type for numbers that have ``commas`` of this meaning, or ""."""
        if self.decimal == ",":
            return "" if commas else "set --decimal . for decimal points"
        return "set --decimal , for decimal commas" if commas == "unknown" else ""

    def recognize_separator(self, first_line: str) -> str:
        """Return the separator, or if it is not set, the most frequent one in the first line."""
        if self.separator is not None:
            return self.separator
        unquoted = re.sub('"[^"]*"', "", first_line)
        choices = [separator for separator in _SEPARATORS if separator != self.decimal]
        found = max(choices, key=unquoted.count)
        return found if found in unquoted or "," not in choices else ","

    def recognize_encoding(self, path: Path) -> tuple[str, str]:
        """Return the encoding of a file, and a note for the user if it is not Unicode."""
        encoding, note = (self.encoding, "") if self.encoding else _recognize(path)
        is_utf8 = codecs.lookup(encoding).name == "utf-8"  # Excel writes a byte order mark.
        return ("utf-8-sig" if is_utf8 else encoding), note


def number_with_comma(text: str) -> float:
    """Parse a number with a decimal comma; a point would be ambiguous."""
    if "." in text:
        raise ValueError(text)
    return float(text.replace(",", "."))


def _recognize(path: Path) -> tuple[str, str]:
    with path.open("rb") as file:
        head = file.read(_HEAD)
        for mark, encoding in _MARKS.items():
            if head.startswith(mark):
                return encoding, ""
        if 0 in head:  # In big-endian UTF-16, zero bytes are at even offsets.
            is_high_first = head[::2].count(0) > head[1::2].count(0)
            return ("utf-16-be" if is_high_first else "utf-16-le"), ""
        decoder, is_ascii, n_lines = codecs.getincrementaldecoder("utf-8")(), True, 1
        file.seek(0)
        while True:
            block = file.read(_BLOCK)
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                start, wrong = bytes(error.object[: error.start]), error.object[error.start]
                if is_ascii and start.isascii():
                    return _WESTERN, _NOTE
                raise DatasetError(
                    f"{path}, line {n_lines + start.count(10)} has the byte 0x{wrong:02x}, which "
                    "is not UTF-8: correct it, or set --encoding to the encoding of the file"
                ) from error
            if not block:
                return "utf-8", ""
            is_ascii, n_lines = is_ascii and text.isascii(), n_lines + text.count("\n")
