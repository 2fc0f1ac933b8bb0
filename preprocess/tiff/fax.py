"""CCITT's codings of images of one bit, as TIFF stores them (TIFF 6.0 sections 10 and 11).

ITU-T T.4 (Group 3) codes each row as runs of white and black, or by what differs from the row above;
T.6 (Group 4) always does the latter. A decoder can continue after most damage; here a code that is not
known, a row that does not end with the image, and data behind the last row are errors.
"""

import itertools
import re

import numpy as np

from tumorbatch.preprocess.tiff.codecs import DamageError

MODIFIED_HUFFMAN, GROUP_3, GROUP_4 = 2, 3, 4
COMPRESSIONS = frozenset({MODIFIED_HUFFMAN, GROUP_3, GROUP_4})

# T.4 tables 2 and 3: the codes of runs of 0, 1, ... 63, then of 64, 128, ... 1728 pixels.
_WHITE = """
00110101 000111 0111 1000 1011 1100 1110 1111 10011 10100 00111 01000 001000 000011 110100 110101 101010
101011 0100111 0001100 0001000 0010111 0000011 0000100 0101000 0101011 0010011 0100100 0011000 00000010
00000011 00011010 00011011 00010010 00010011 00010100 00010101 00010110 00010111 00101000 00101001
00101010 00101011 00101100 00101101 00000100 00000101 00001010 00001011 01010010 01010011 01010100
01010101 00100100 00100101 01011000 01011001 01011010 01011011 01001010 01001011 00110010 00110011
00110100 11011 10010 010111 0110111 00110110 00110111 01100100 01100101 01101000 01100111 011001100
011001101 011010010 011010011 011010100 011010101 011010110 011010111 011011000 011011001 011011010
011011011 010011000 010011001 010011010 011000 010011011
"""
_BLACK = """
0000110111 010 11 10 011 0011 0010 00011 000101 000100 0000100 0000101 0000111 00000100 00000111
000011000 0000010111 0000011000 0000001000 00001100111 00001101000 00001101100 00000110111 00000101000
00000010111 00000011000 000011001010 000011001011 000011001100 000011001101 000001101000 000001101001
000001101010 000001101011 000011010010 000011010011 000011010100 000011010101 000011010110 000011010111
000001101100 000001101101 000011011010 000011011011 000001010100 000001010101 000001010110 000001010111
000001100100 000001100101 000001010010 000001010011 000000100100 000000110111 000000111000 000000100111
000000101000 000001011000 000001011001 000000101011 000000101100 000001011010 000001100110 000001100111
0000001111 000011001000 000011001001 000001011011 000000110011 000000110100 000000110101 0000001101100
0000001101101 0000001001010 0000001001011 0000001001100 0000001001101 0000001110010 0000001110011
0000001110100 0000001110101 0000001110110 0000001110111 0000001010010 0000001010011 0000001010100
0000001010101 0000001011010 0000001011011 0000001100100 0000001100101
"""
_BOTH = """
00000001000 00000001100 00000001101 000000010010 000000010011 000000010100 000000010101 000000010110
000000010111 000000011100 000000011101 000000011110 000000011111
"""  # 1792, 1856, ... 2560
_LENGTHS = [*range(64), *range(64, 1729, 64), *range(1792, 2561, 64)]
_RUNS = [dict(zip((own + _BOTH).split(), _LENGTHS, strict=True)) for own in (_WHITE, _BLACK)]
# T.4 table 4: the change that is coded lies so many pixels right of the one above, or is another kind.
_PASS, _HORIZONTAL = 10, 11
_MODES = {
    "1": 0, "011": 1, "000011": 2, "0000011": 3, "010": -1, "000010": -2, "0000010": -3,
    "0001": _PASS, "001": _HORIZONTAL,
}  # fmt: skip
_LONGEST = 13  # bits of a code
_END_OF_LINE = re.compile("0{11,}1")
# What may lie behind the last row: marks of its end, and zeros that fill up a byte or a word.
_ENDS = {
    MODIFIED_HUFFMAN: re.compile("0*"),
    GROUP_3: re.compile("(0{11,}11?)*0*"),
    GROUP_4: re.compile("(0{11}10{11}1)?0*"),
}
_MOST_BYTES = 1 << 25  # a character a bit; a page of 64 million pixels has 8 MB uncompressed

Changes = list[int]


def unpack_fax(data: bytes, compression: int, both_ways: bool, rows: int, columns: int) -> bytes:
    """Undo Group 3 or Group 4.

    Args:
        data: A strip or tile, its first bit the highest one.
        compression: One of `COMPRESSIONS`.
        both_ways: Whether a bit at the beginning of each row of Group 3 says how the row is coded.
        rows: Of the image in it.
        columns: Likewise.

    Returns:
        `rows` rows of bits, each filled up to a whole byte; 0 is white.

    Raises:
        DamageError: It is damaged, too short or too long.
    """
    if len(data) > _MOST_BYTES:
        raise DamageError(f"it is larger than {_MOST_BYTES:,} bytes")
    bits = _Bits(data)
    pixels = np.zeros((rows, columns), np.uint8)
    above: Changes = []
    for row in pixels:
        above = _row(bits, compression, both_ways, above, columns)
        for start, end in itertools.zip_longest(above[::2], above[1::2], fillvalue=columns):
            row[start:end] = 1
    if not _ENDS[compression].fullmatch(bits.text, bits.at):
        raise DamageError("there are data behind its last row")
    return np.packbits(pixels, axis=1).tobytes()


class _Bits:
    """The bits of a strip, as characters, and where the next code begins."""

    __slots__ = ("at", "text")

    def __init__(self, data: bytes) -> None:
        self.text = bin(int.from_bytes(b"\1" + data, "big"))[3:]
        self.at = 0

    def code(self, table: dict[str, int]) -> int:
        """Read a code and return what it stands for."""
        for end in range(self.at + 1, self.at + _LONGEST + 1):
            value = table.get(self.text[self.at : end])
            if value is not None:
                self.at = end
                return value
        raise DamageError("it has a code that does not exist, or ends too early")

    def run(self, colour: int) -> int:
        """Read the length of a run of white (0) or black (1); the code below 64 is its last."""
        length = 0
        while True:
            part = self.code(_RUNS[colour])
            length += part
            if part < 64:
                return length


def _row(bits: _Bits, compression: int, both_ways: bool, above: Changes, columns: int) -> Changes:
    """Read a row: the places where its colour changes, the first one to black."""
    by_runs = compression != GROUP_4
    if compression == MODIFIED_HUFFMAN:
        bits.at = -(-bits.at // 8) * 8
    if compression == GROUP_3:
        mark = _END_OF_LINE.match(bits.text, bits.at)
        if mark:
            bits.at = mark.end()
        if both_ways:
            by_runs = bits.text[bits.at : bits.at + 1] == "1"
            bits.at += 1
    return _by_runs(bits, columns) if by_runs else _by_difference(bits, above, columns)


def _by_runs(bits: _Bits, columns: int) -> Changes:
    changes: Changes = []
    at = colour = 0
    while at < columns:
        at += bits.run(colour)
        _add(changes, at, columns)
        colour = 1 - colour
    return changes


def _by_difference(bits: _Bits, above: Changes, columns: int) -> Changes:
    """Read a row that is coded by its differences from the one above (T.4 section 4.2)."""
    reference = [*above, columns, columns, columns]
    changes: Changes = []
    at, colour, place = -1, 0, 0  # before the first pixel, so that one may change there
    while at < columns:
        while place and reference[place - 1] > at:
            place -= 1
        while reference[place] <= at or place % 2 != colour:
            place += 1
        mode = bits.code(_MODES)
        if mode == _PASS:
            at = reference[place + 1]
        elif mode == _HORIZONTAL:
            at = max(at, 0)
            for each in (colour, 1 - colour):
                at += bits.run(each)
                _add(changes, at, columns)
        else:
            if reference[place] + mode < max(at, 0):
                raise DamageError("a run in it has no length")
            at = reference[place] + mode
            _add(changes, at, columns)
            colour = 1 - colour
    return changes


def _add(changes: Changes, at: int, columns: int) -> None:
    """Add a change of colour; two at one place are none."""
    if at > columns:
        raise DamageError("a row is longer than the image")
    if changes and changes[-1] == at:
        changes.pop()
    else:
        changes.append(at)
