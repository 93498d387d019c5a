"""The tar container byte by byte: a walk over its headers, and how a key becomes a member name.

Stdlib tarfile costs about 0.1 ms a member; the walk over the 512-byte headers in a buffer costs a
tenth of that and gives the offsets an index needs. Read: v7, ustar with prefix, GNU long names, PAX
path and size. Written: GNU, which keeps names of any script as UTF-8 bytes. POSIX.1-1988 and
POSIX.1-2001 (pax), and the manual of GNU tar.

Names: a member is ``<key>.<ext>``, and exactly one known final extension is taken off to find the
key, so keys may hold dots, spaces, slashes and any script, and may themselves end in ``.wav``. A
key that makes no safe file name (control characters, empty, ``.`` or ``..`` parts, too long for
file systems) is written as ``key-<sha1>``; the true key then stands in the ``.json`` member, which
beats the name.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import NamedTuple

from wenet_osum import tasks

BLOCK = 512  # bytes
_FORMATS = "wav flac mp3 m4a mp4 aac ogg opus oga wma aif aiff aifc au snd sph nist amr w64 caf"
AUDIO = frozenset(_FORMATS.split())  # extensions
# Members of the earlier recordings of a conversation, audio of any format: ``<key>.audio1``, ….
MOST_EARLIER = 63
EARLIER = tuple(f"audio{number}" for number in range(1, MOST_EARLIER + 1))
# Members of the published OSUM layout beside audio and text. Labels that it has no member for lie
# in ``extra``; its kin give them members of their own, so the names of all labels are extensions.
OSUM = ("task", "lang", "speaker", "emotion", "gender", "duration", "extra")
# Where fields lie in a header.
_NAME, _SIZE = slice(0, 100), slice(124, 136)
_CHECKSUM, _KIND = slice(148, 156), slice(156, 157)
_MAGIC, _PREFIX = slice(257, 263), slice(345, 500)
# Kinds of members: a file of old and new tars, one that should lie in one piece, and headers that
# say more of what comes next.
_FILE = (b"0", b"\0")
_CONTIGUOUS = b"7"
_LONG_NAME, _LONG_LINK = b"L", b"K"
_PAX, _PAX_OF_ALL = b"x", b"g"
_EXTENSIONS = (_LONG_NAME, _LONG_LINK, _PAX, _PAX_OF_ALL)


def known_extensions() -> frozenset[str]:
    """Return the extensions of members that are read."""
    return _known_extensions(tasks.label_names())


@lru_cache(maxsize=4)
def _known_extensions(labels: tuple[str, ...]) -> frozenset[str]:
    return AUDIO | {*EARLIER, *OSUM, *labels, "txt", "json"}


class Member(NamedTuple):
    """One file in a tar. Positions are bytes from the start of the buffer."""

    name: str
    start: int  # of its first header, extension headers included
    data: int  # of its content
    size: int  # of its content
    end: int  # of its content, padding included


class BadTar(ValueError):
    """The tar is damaged from byte ``at`` on; everything before is whole.

    ``name`` is the member that was cut, "" when not known.
    """

    def __init__(self, message: str, at: int, name: str = ""):
        super().__init__(message)
        self.at = at
        self.name = name


def walk(buffer: memoryview, check: bool = False, ended: bool = True) -> Iterator[Member]:
    """Yield the regular files of a tar, or of a stretch of one.

    ``check`` verifies header checksums; ``ended`` demands the end mark (two zero blocks), False for
    a stretch. Raises BadTar where the tar is cut or damaged.
    """
    total = len(buffer)
    at = 0
    # of the member whose headers are being read: where they begin, and what extension headers say
    start, long_name, long_size = 0, None, None
    while at + BLOCK <= total:
        head = bytes(buffer[at : at + BLOCK])
        if not any(head):
            return
        if check:
            _verify(head, at)
        kind = head[_KIND]
        size = _number(head[_SIZE], at)
        if long_size is not None and kind not in _EXTENSIONS:
            size = long_size
        data = at + BLOCK
        if data + size > total:
            name = _name(head, long_name) if kind in _FILE else ""
            left = max(total - data, 0)
            raise BadTar(
                f"the member at byte {at} needs {size} bytes, {left} are left", start, name
            )
        end = data + (size + BLOCK - 1) // BLOCK * BLOCK

        # An extension header speaks of the next member; any other header is of a member, which
        # uses up what was said.
        if kind == _LONG_NAME:
            content = bytes(buffer[data : data + size])
            long_name = content.rstrip(b"\0")
        elif kind == _PAX:
            content = bytes(buffer[data : data + size])
            long_name, long_size = _of_pax(content, long_name)
        elif kind not in _EXTENSIONS:
            if kind in _FILE or kind == _CONTIGUOUS:
                yield Member(_name(head, long_name), start, data, size, end)
            start, long_name, long_size = end, None, None
        at = end
    if ended or at != total:
        raise BadTar("the end mark (two zero blocks) is missing", start)


# The header of an empty file without a name, and the sum of its bytes without those of the size,
# the checksum taken as spaces.
_PLAIN = tarfile.TarInfo("").tobuf(tarfile.GNU_FORMAT)
_SUM = sum(_PLAIN) - sum(_PLAIN[124:135]) - sum(_PLAIN[_CHECKSUM]) + 8 * 32
_SHORT_NAME = 100  # bytes of a name without an extension header
_SMALL = 8**11  # bytes: eleven octal digits cannot write it


def header(name: str, size: int) -> bytes:
    """Return the header of a member, GNU form.

    It is without times or owners, so that equal contents give equal tars.
    """
    raw = name.encode("utf-8")
    if len(raw) > _SHORT_NAME or size >= _SMALL:
        info = tarfile.TarInfo(name)
        info.size = size
        return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")

    # Nearly always: it takes a twentieth of tarfile's time.
    digits = b"%011o" % size
    checksum = _SUM + sum(raw) + sum(digits)
    fields = (
        raw.ljust(_SHORT_NAME, b"\0"),
        _PLAIN[100:124],
        digits,
        _PLAIN[135:148],
        b"%06o\0 " % checksum,
        _PLAIN[156:],
    )
    return b"".join(fields)


def member(name: str, content: bytes) -> bytes:
    """Return a whole member: header, content, padding."""
    size = len(content)
    padding = bytes(-size % BLOCK)
    return header(name, size) + content + padding


END = bytes(2 * BLOCK)


def split_name(name: str, known: Collection[str] | None = None) -> tuple[str, str]:
    """Split a member's name into key and extension, "" when it is not one of ``known``.

    The extension is in lower case; ``known`` is ``known_extensions()`` by default.
    """
    if known is None:
        known = known_extensions()
    name = name.removeprefix("./")
    stem, _, ext = name.rpartition(".")
    ext = ext.lower()
    if stem and ext in known:
        return stem, ext
    return name, ""


def stem_of(key: str) -> str:
    """Return the member name of a key without its extension.

    ``is_plain(key)`` tells whether it is the key itself.
    """
    if is_plain(key):
        return key
    raw = key.encode("utf-8", "surrogatepass")
    digest = hashlib.sha1(raw).hexdigest()
    return f"key-{digest}"


def is_plain(key: str) -> bool:
    """Tell whether a key can be a path inside a tar as it stands."""
    for part in key.split("/"):
        if part in ("", ".", ".."):
            return False
        raw = part.encode("utf-8", "surrogatepass")
        # file systems take 255 bytes, and an extension is still to come
        if len(raw) > 240:
            return False
    return key.isprintable() and key[-1] != " "


def _verify(head: bytes, at: int) -> None:
    """Raise BadTar for a header whose bytes do not add up to its checksum."""
    want = _number(head[_CHECKSUM], at)
    # the checksum itself counts as eight spaces
    got = sum(head) - sum(head[_CHECKSUM]) + 8 * 32
    if want != got:
        told = f"checksum {got}, header says {want}"
        raise BadTar(f"no tar header at byte {at} ({told})", at)


def _number(raw: bytes, at: int) -> int:
    """Read octal text, or base 256 for sizes over 8 GiB. Raises BadTar."""
    if raw[0] & 0x80:
        bits = 8 * len(raw) - 1
        whole = int.from_bytes(raw, "big")
        return whole & ((1 << bits) - 1)
    text, _, _ = raw.partition(b"\0")
    try:
        return int(text.strip() or b"0", 8)
    except ValueError:
        raise BadTar(f"no tar header at byte {at} (number field {raw!r})", at) from None


def _name(head: bytes, long_name: bytes | None) -> str:
    """Return a member's name, that of an extension header before its own."""
    name = long_name or _short_name(head)
    # a name that is no UTF-8 is counted later, not fatal here
    return name.decode("utf-8", "surrogateescape")


def _short_name(head: bytes) -> bytes:
    """Read the name in a header."""
    name, _, _ = head[_NAME].partition(b"\0")
    # GNU headers keep times where ustar has the prefix
    if head[_MAGIC] != b"ustar\0":
        return name
    prefix, _, _ = head[_PREFIX].partition(b"\0")
    if not prefix:
        return name
    return prefix + b"/" + name


def _of_pax(content: bytes, long_name: bytes | None) -> tuple[bytes | None, int | None]:
    """Return the name (else ``long_name``) and size that PAX records tell."""
    records = _pax(content)
    size = records.get(b"size")
    if size is not None:
        size = int(size)
    return records.get(b"path", long_name), size


def _pax(raw: bytes) -> dict[bytes, bytes]:
    """Read records ``<length> <key>=<value>\\n``; the length counts the whole record."""
    found = {}
    while raw:
        digits, _, _ = raw.partition(b" ")
        if not digits.isdigit():
            break
        length = int(digits)
        if not length:
            break
        record = raw[len(digits) + 1 : length - 1]
        key, _, value = record.partition(b"=")
        found[key] = value
        raw = raw[length:]
    return found
