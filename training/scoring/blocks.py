"""Read a text file in blocks of whole rows, in bounded memory."""

import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, Self

import numpy as np

from training.errors import InvalidDataError

BLOCK_BYTES = 1 << 20
MAX_ROW_BYTES = 1 << 26
# A quoted cell with its line ends, possibly unterminated. The quantifiers are possessive:
# backtracking would take memory for each character.
QUOTED = re.compile(rb'(?:\A|(?<=[,\n]))"(?:[^"]++|"")*+"?')


class Block(NamedTuple):
    """Whole rows of a file, in UTF-8."""

    text: bytes
    masked: bytes  # the text with spaces for the line ends inside quotes; the others end a row
    first_line: int

    def header_length(self) -> int:
        """Return the length of the first row."""
        return self.masked.find(b"\n") + 1 or len(self.masked)

    def without_header(self) -> Self:
        """Return the block without its first row."""
        length = self.header_length()
        first_line = self.first_line + self.text.count(b"\n", 0, length)
        return type(self)(self.text[length:], self.masked[length:], first_line)

    def without_blank_rows(self) -> tuple[bytes, np.ndarray]:
        """Return the text without blank rows, and the line that each of its rows starts on."""
        ends = line_ends(self.masked)
        # A row starts after the end of the row before it; none starts after the last end.
        starts = np.append(0, ends + 1)[:-1]
        lines = self.first_line + np.searchsorted(line_ends(self.text), starts)
        codes = np.frombuffer(self.text, np.uint8)
        is_blank = (starts == ends) | ((starts + 1 == ends) & (codes[starts] == ord("\r")))
        if not is_blank.any():
            return self.text, lines
        bounds = np.column_stack([starts, ends + 1])[~is_blank].tolist()
        return b"".join(self.text[start:end] for start, end in bounds), lines[~is_blank]


def read_blocks(file: BinaryIO, quotes: bool) -> Iterator[Block]:
    """Yield the rows of a file; raise InvalidDataError if one is too large, or not UTF-8.

    `quotes`: line ends inside quoted cells do not end a row.
    """
    line, rest = 1, b""
    is_last = False
    while not is_last:
        chunk = file.read(BLOCK_BYTES)
        is_last = not chunk
        text = rest + chunk
        if line == 1:
            text = text.removeprefix(BOM_UTF8)
        masked = mask_quoted_line_ends(text) if quotes else text
        end = len(text) if is_last else masked.rfind(b"\n") + 1
        rest = text[end:]
        if len(rest) > MAX_ROW_BYTES:
            hint = "; is a quote not closed?" if quotes else ""
            line += text.count(b"\n", 0, end)
            raise InvalidDataError(f"line {line}: the row is over {MAX_ROW_BYTES} bytes{hint}")
        if is_last and quotes and any(cell.count(b'"') % 2 for cell in QUOTED.findall(text)):
            raise InvalidDataError(f"line {line}: a quote is not closed")
        if end:
            check_encoding(text[:end], line)
            yield Block(text[:end], masked[:end], line)
            line += text.count(b"\n", 0, end)


def line_ends(text: bytes) -> np.ndarray:
    """Return the offsets of line ends, and the end of the text if its last line has none."""
    ends = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n"))
    return ends if text.endswith(b"\n") or not text else np.append(ends, len(text))


def mask_quoted_line_ends(text: bytes) -> bytes:
    """Replace the line ends inside the quotes of a CSV text by spaces."""
    if b'"' not in text:
        return text
    return QUOTED.sub(lambda cell: cell[0].replace(b"\n", b" "), text)


def check_encoding(text: bytes, line: int) -> None:
    """Raise InvalidDataError naming the first line that is not UTF-8."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        line += text.count(b"\n", 0, error.start)
        raise InvalidDataError(
            f"line {line} is not UTF-8: convert the file, such as with "
            "`iconv -f latin1 -t utf-8` (or -f utf-16)"
        ) from None
