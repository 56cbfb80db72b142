"""Files as they come and as they go: lines read one at a time, contents written whole or not at all."""

import gzip
import io
import os
import secrets
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import cast

# In bytes. No text that people write has longer lines, and a few kilobytes of gzip can hold one that fills the memory.
LONGEST_LINE = 2**24
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
GZIP = b"\x1f\x8b"
# What cannot be read, by its first bytes.
ARCHIVES = {b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstandard"}


def read_lines(path: str | os.PathLike, kind: str, whole: bool = False) -> Iterator[tuple[int, bytes]]:
    r"""Each line of a file and its number, from 1, without the end of the line, which is `\n` or `\r\n` and nothing else.

    The file may be gzipped, whatever it is called, and may begin with a byte order mark, which is passed over. No more of it
    is held than a line.

    Args:
        kind: what the file should be, for the errors.
        whole: to have lines as they stand in the file, with their ends and the byte order mark.

    Raises:
        FileNotFoundError: no such file, or a folder.
        ValueError: an archive, compressed data that is damaged or cut off, or a line of more than 16 MiB.
    """
    path = Path(path)
    if path.is_dir() or not path.exists():
        raise FileNotFoundError(f"No {kind} at {str(path)!r}{', which is a folder' if path.is_dir() else ''}.")
    with path.open("rb") as raw:
        start = raw.peek(8)
        for first_bytes, archive in ARCHIVES.items():
            if start.startswith(first_bytes):
                raise ValueError(f"{path} is a {archive} archive and no {kind}: unpack it first.")
        file = io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=raw)), 2**17) if start.startswith(GZIP) else raw
        number = 0
        while True:
            try:
                line = file.readline(LONGEST_LINE)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise ValueError(
                    f"{path}, after line {number}: the compressed data is damaged or cut off ({error}). Copy the file again."
                ) from None
            if not line:
                return
            number += 1
            if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                raise ValueError(f"{path}, line {number}: longer than {LONGEST_LINE >> 20} MiB, so this is no {kind}.")
            if whole:
                yield number, line
                continue
            if number == 1:
                line = line.removeprefix(BYTE_ORDER_MARK)
            yield number, line.removesuffix(b"\n").removesuffix(b"\r")


def read_text(path: str | os.PathLike, kind: str) -> Iterator[tuple[int, str]]:
    """What `read_lines` gives, as text.

    Raises:
        FileNotFoundError, ValueError: see `read_lines`; also a line that is not in UTF-8.
    """
    for number, line in read_lines(path, kind):
        yield number, decoded(line, f"{path}, line {number}")


def decoded(line: bytes, place: str) -> str:
    """A line as text.

    Raises:
        ValueError: a line that is not in UTF-8; it names the `place`.
    """
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{place}: byte {error.start + 1} of the line (0x{line[error.start]:02x}) is not UTF-8. Convert the file to UTF-8, "
            "with `iconv` for example."
        ) from None


def write_file(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a file whole (text in UTF-8) or, where that fails, leaves the old one as it was: beside it, then renamed.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: text with half of a surrogate pair, which no file can hold.
        OSError: whatever keeps the file from being written.
    """
    if isinstance(content, str):
        try:
            content = content.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{path} cannot be written: its text has half of a surrogate pair at {error.start}, "
                f"{content[max(error.start - 20, 0) : error.end + 20]!r}. Mend or remove it."
            ) from None
    path = Path(os.path.realpath(path))  # through a link, to the file that it stands for
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {str(path.parent)!r} to write {path.name!r} into.")
    if path.exists() and not path.is_file():  # a terminal or a pipe, which has no other place; or a folder, which is refused
        path.write_bytes(content)
        return
    unfinished = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        unfinished.write_bytes(content)
        if path.exists():
            shutil.copymode(path, unfinished)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def shorten(text: str, longest: int = 60) -> str:
    """Text of at most so many characters: what is longer ends in an ellipsis."""
    return text if len(text) <= longest else text[: longest - 1] + "…"
