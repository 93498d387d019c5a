"""The tar container byte by byte: a walk over 512-byte headers in a buffer, and how an utterance's key becomes a member name.

Stdlib tarfile costs about 0.1 ms a member; the walk costs a tenth of that and gives the offsets an index needs.
Read: v7, ustar with prefix, GNU long names, PAX path and size. Written: GNU, which keeps names of any script as UTF-8 bytes.

Names: a member is ``<key>.<ext>``, and exactly one known final extension is taken off to find the key, so keys may hold dots, spaces,
slashes and any script, and may themselves end in ``.wav``. A key that makes no safe file name (control characters, empty, ``.`` or ``..`` parts, too
long for file systems) is written as ``key-<sha1>``; the true key then stands in the ``.json`` member, which beats the name.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import NamedTuple

from wenet_osum import tasks

BLOCK = 512  # bytes
AUDIO = frozenset("wav flac mp3 m4a mp4 aac ogg opus oga wma aif aiff aifc au snd sph nist amr w64 caf".split())
# Members of the published OSUM layout beside audio and text. Labels that it has no member for lie
# in ``extra``; its kin give them members of their own, so the names of all labels are extensions.
OSUM = ("task", "lang", "speaker", "emotion", "gender", "duration", "extra")


def known_extensions() -> frozenset[str]:
    """The extensions of members that are read."""
    return _known_extensions(tasks.label_names())


@lru_cache(maxsize=4)
def _known_extensions(labels: tuple[str, ...]) -> frozenset[str]:
    return AUDIO | {*OSUM, *labels, "txt", "json"}


class Member(NamedTuple):
    """One file in a tar. Positions are bytes from the start of the buffer."""

    name: str
    start: int  # of its first header, extension headers included
    data: int  # of its content
    size: int  # of its content
    end: int  # of its content, padding included


class BadTar(ValueError):
    """The tar is damaged from byte ``at`` on; everything before is whole. ``name`` is the member that was cut, "" when not known."""

    def __init__(self, message: str, at: int, name: str = ""):
        super().__init__(message)
        self.at = at
        self.name = name


def walk(buffer: memoryview, check: bool = False, ended: bool = True) -> Iterator[Member]:
    """Yield the regular files of a tar, or of a stretch of one.

    ``check`` verifies header checksums; ``ended`` demands the end mark (two zero blocks), False for a stretch.
    Raises BadTar where the tar is cut or damaged.
    """
    at, start, long_name, long_size = 0, 0, None, None
    total = len(buffer)
    while at + BLOCK <= total:
        head = bytes(buffer[at : at + BLOCK])
        if not any(head):
            return
        if check:
            _verify(head, at)
        size, kind, data = _number(head[124:136], at), head[156:157], at + BLOCK
        if long_size is not None and kind not in b"xgLK":
            size = long_size
        end = data + (size + BLOCK - 1) // BLOCK * BLOCK
        if data + size > total:
            name = _text(long_name or _short_name(head)) if kind in b"0\0" else ""
            raise BadTar(f"the member at byte {at} needs {size} bytes, {max(total - data, 0)} are left", start, name)
        if kind == b"L":
            long_name = bytes(buffer[data : data + size]).rstrip(b"\0")
        elif kind == b"x":
            pax = _pax(bytes(buffer[data : data + size]))
            long_name = pax.get(b"path", long_name)
            long_size = int(pax[b"size"]) if b"size" in pax else None
        elif kind not in b"gK":
            if kind in b"0\0" or kind == b"7":
                yield Member(_text(long_name or _short_name(head)), start, data, size, end)
            start, long_name, long_size = end, None, None
        at = end
    if ended or at != total:
        raise BadTar("the end mark (two zero blocks) is missing", start)


_PLAIN = tarfile.TarInfo("").tobuf(tarfile.GNU_FORMAT)  # of an empty file without a name
_SUM = sum(_PLAIN) - sum(_PLAIN[124:135]) - sum(_PLAIN[148:156]) + 8 * 32  # its bytes without size, the checksum taken as spaces


def header(name: str, size: int) -> bytes:
    """The header of a member, GNU form, without times or owners so that equal contents give equal tars."""
    raw = name.encode("utf-8")
    if len(raw) <= 100 and size < 8**11:  # nearly always: a twentieth of tarfile's time
        digits = b"%011o" % size
        checksum = _SUM + sum(raw) + sum(digits)
        return b"".join((raw.ljust(100, b"\0"), _PLAIN[100:124], digits, _PLAIN[135:148], b"%06o\0 " % checksum, _PLAIN[156:]))
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")


def member(name: str, content: bytes) -> bytes:
    """A whole member: header, content, padding."""
    return header(name, len(content)) + content + bytes(-len(content) % BLOCK)


END = bytes(2 * BLOCK)


def split_name(name: str, known: Collection[str] | None = None) -> tuple[str, str]:
    """Split a member's name into key and extension, "" when it is not one of ``known``.

    The extension is in lower case; ``known`` is ``known_extensions()`` by default.
    """
    known = known_extensions() if known is None else known
    name = name.removeprefix("./")
    stem, dot, ext = name.rpartition(".")
    return (stem, ext.lower()) if dot and stem and ext.lower() in known else (name, "")


def stem_of(key: str) -> str:
    """The member name of a key without its extension; ``is_plain(key)`` tells whether it is the key itself."""
    return key if is_plain(key) else "key-" + hashlib.sha1(key.encode("utf-8", "surrogatepass")).hexdigest()


def is_plain(key: str) -> bool:
    """Whether a key can be a path inside a tar as it stands."""
    parts = key.split("/")
    safe = all(p not in ("", ".", "..") and len(p.encode("utf-8", "surrogatepass")) <= 240 for p in parts)
    return safe and key.isprintable() and key[-1] != " "


def _verify(head: bytes, at: int) -> None:
    want = _number(head[148:156], at)
    got = sum(head[:148]) + 256 + sum(head[156:])
    if want != got:
        raise BadTar(f"no tar header at byte {at} (checksum {got}, header says {want})", at)


def _number(raw: bytes, at: int) -> int:
    """Octal text, or base 256 for sizes over 8 GiB."""
    if raw[0] & 0x80:
        return int.from_bytes(raw, "big") & ((1 << (8 * len(raw) - 1)) - 1)
    text = raw.split(b"\0", 1)[0].strip()
    try:
        return int(text or b"0", 8)
    except ValueError:
        raise BadTar(f"no tar header at byte {at} (number field {raw!r})", at) from None


def _short_name(head: bytes) -> bytes:
    name = head[:100].split(b"\0", 1)[0]
    if head[257:263] == b"ustar\0":  # GNU headers keep times where ustar has the prefix
        prefix = head[345:500].split(b"\0", 1)[0]
        return prefix + b"/" + name if prefix else name
    return name


def _pax(raw: bytes) -> dict[bytes, bytes]:
    """PAX records are ``<length> <key>=<value>\\n``; the length counts the whole record."""
    found = {}
    while raw:
        length, _, _ = raw.partition(b" ")
        if not length.isdigit() or not int(length):
            break
        key, _, value = raw[len(length) + 1 : int(length) - 1].partition(b"=")
        found[key] = value
        raw = raw[int(length) :]
    return found


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")  # a name that is no UTF-8 is counted later, not fatal here
