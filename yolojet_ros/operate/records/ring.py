"""The last seconds of one camera, in memory."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Deque, Iterator, Optional, Tuple

MOST_BYTES = 128 << 20


@dataclass(frozen=True)
class Entry:
    """
    One image and its result.

    at: when it came, on time.monotonic; received, finished: image and result, ns since 1970
    stamp, frame_id: the image's header, (seconds, nanoseconds)
    image: format and bytes, as of a CompressedImage
    result: message in CDR, None where there is none
    """

    at: float
    received: int
    finished: int
    stamp: Tuple[int, int]
    frame_id: str
    image: Tuple[str, bytes]
    result: Optional[bytes]

    @property
    def size(self) -> int:
        """Return about how many bytes it takes."""
        return len(self.image[1]) + len(self.result or b'') + 200


class Ring:
    """
    Entries of the last seconds, the oldest first.

    :param seconds: that it looks back; raising it takes memory
    :param most: bytes of all entries; where they would be more, it looks back less far
    """

    def __init__(self, seconds: float, most: int = MOST_BYTES) -> None:
        self._seconds, self._most = seconds, most
        self._entries: Deque[Entry] = deque()
        self.size = 0

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry) -> None:
        """Take an entry in, and let go of those that are too old or too many."""
        self._entries.append(entry)
        self.size += entry.size
        while self._entries and (self.size > self._most
                                 or self._entries[0].at < entry.at - self._seconds):
            self.size -= self._entries.popleft().size
