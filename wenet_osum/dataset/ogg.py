"""Ogg files that are joined of several, as streams from the radio are recorded.

libsndfile reads the first of them and takes it for the whole.
"""

from __future__ import annotations

PAGE = b"OggS"  # what every page begins with
# Where a page's header has its kind and the number of its segments, whose sizes follow it.
_KIND, _SEGMENTS, _HEADER = 5, 26, 27
_FIRST = 0x02  # kind of the first page of a stream


def is_joined(data: bytes | memoryview) -> bool:
    """Tell whether a stream begins in the middle of an Ogg file (RFC 3533, section 4).

    Streams that are heard together all begin before the first page of sound.
    """
    at = 0
    in_sound = False
    while True:
        header = data[at : at + _HEADER]
        if len(header) < _HEADER or header[:4] != PAGE:
            return False
        is_first = header[_KIND] & _FIRST
        if is_first and in_sound:
            return True
        in_sound = not is_first

        segments = at + _HEADER
        content = segments + header[_SEGMENTS]
        at = content + sum(data[segments:content])
