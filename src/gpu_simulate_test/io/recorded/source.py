"""Files as people have them: plain or compressed, of any Unicode encoding; JSON in lines, indented or in one list."""

import gzip
import json
import re
import zipfile
import zlib
from codecs import getincrementaldecoder
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from gpu_simulate_test.errors import ArtifactError
from gpu_simulate_test.io.files import check_regular
from gpu_simulate_test.io.recorded.numbers import Malformed

_BLOCK = 1 << 20
_SPACE = re.compile(r"[ \t\r\n]*")


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """The file's content, uncompressed: of gzip, zstd, or a zip of one file.

    Raises
    ------
    ArtifactError
        It cannot be read, is cut off, or is no text; so do errors of what reads it.
    """
    check_regular(path)
    try:
        with path.open("rb") as raw:
            magic = raw.read(4)
            raw.seek(0)
            if magic[:2] == b"\x1f\x8b":
                yield cast(BufferedReader, gzip.GzipFile(fileobj=raw))
            elif magic == b"\x28\xb5\x2f\xfd":
                yield BufferedReader(pa.CompressedInputStream(raw, "zstd"))
            elif magic == b"PK\x03\x04":
                with zipfile.ZipFile(raw) as archive:
                    names = [name for name in archive.namelist() if not name.endswith("/")]
                    if len(names) != 1:
                        raise ArtifactError(f"{len(names)} files in {path}: give one of them")
                    with archive.open(names[0]) as member:
                        yield cast(BufferedReader, member)
            else:
                yield raw
    except (gzip.BadGzipFile, zlib.error, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ArtifactError(f"cannot uncompress: {path}: it is cut off or damaged") from error
    except UnicodeError as error:
        raise ArtifactError(f"not text: {path}: {error}") from error
    except OSError as error:
        what = error.strerror or "it is cut off or damaged"
        raise ArtifactError(f"cannot read recorded requests: {path}: {what}") from error


def encoding(stream: BufferedReader) -> str:
    """Encoding of a text by its first bytes: a byte-order mark, or the zeros among them."""
    return json.detect_encoding(stream.peek(4)[:4])


def is_json(stream: BufferedReader) -> bool:
    """True of a text whose first character is that of an object or a list."""
    start = stream.peek(_BLOCK)[:_BLOCK]
    text = start.decode(json.detect_encoding(start[:4]), errors="replace")
    return text.lstrip(" \t\r\n")[:1] in ("{", "[")


def documents(stream: BufferedReader) -> Iterator[Any]:
    """Values of JSON one at a time, whether one a line, one after another, or the elements of one list.

    Raises
    ------
    Malformed
        No JSON, or cut off.
    """
    decoder = getincrementaldecoder(encoding(stream))()

    def read(size: int) -> str:
        data = stream.read(size)
        return decoder.decode(data, not data)

    buffer, at, number = read(_BLOCK), 0, 0
    decode = json.JSONDecoder().raw_decode

    def skip() -> str:
        """Go past white space; the next character, or nothing at the end."""
        nonlocal buffer, at
        while True:
            at = _SPACE.match(buffer, at).end()  # type: ignore[union-attr]  # it always matches
            if at < len(buffer):
                return buffer[at]
            buffer, at = read(_BLOCK), 0
            if not buffer:
                return ""

    in_list = skip() == "["
    at += in_list
    closed = not in_list
    while character := skip():
        if closed and in_list:
            raise Malformed("there is more after its list")
        if character == "]" and in_list:
            at, closed = at + 1, True
            continue
        if in_list and number:
            at += character == ","
            if character != "," or skip() in ("", "]"):
                break
        while True:
            try:
                value, end = decode(buffer, at)
                break
            except (ValueError, RecursionError) as error:
                more = "" if isinstance(error, RecursionError) else read(max(_BLOCK, len(buffer) - at))
                if not more:
                    raise Malformed(f"number {number + 1} in it is no JSON, or cut off") from error
                buffer, at = buffer[at:] + more, 0
        at, number = end, number + 1
        yield value
    if not closed:
        raise Malformed(f"its list is malformed, or cut off, after number {number}")
