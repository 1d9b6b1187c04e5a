"""How images of a size come to this process best, and why they do not, in one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Collection, List, Sequence

from rclpy.qos import ReliabilityPolicy

from yolojet_ros.ros import middleware

_MARGIN = 1.5  # images that the socket's buffer should hold, as advised
_PAUSE = 3.0  # s between two images, from which on a camera has rested
_MANY_LOST = 0.05  # share of images that is worth a word


@dataclass(frozen=True)
class Reception:
    """
    The way in which images reach this process.

    :ivar fast_dds: whether the middleware is Fast DDS
    :ivar network: whether Fast DDS receives by UDP only
    :ivar buffer: bytes that may wait in a socket
    """

    fast_dds: bool
    network: bool
    buffer: int

    @staticmethod
    def of_process() -> Reception:
        """Return how this process receives; call it after middleware.prepare."""
        return Reception(middleware.is_fast_dds(), middleware.receives_by_network(),
                         middleware.socket_buffer())

    def holds(self, size: int) -> bool:
        """Return whether an image of `size` bytes arrives without being sent again."""
        return self.network and size <= self.buffer

    def reliability(
        self, size: int, losing: bool, offers: Sequence[ReliabilityPolicy],
    ) -> ReliabilityPolicy:
        """
        Choose what to request.

        Best effort is quicker, as long as the buffer holds an image; beyond that only a
        publisher that sends lost pieces again gets images through.

        :param size: of all images that may come at once, in bytes
        :param losing: whether images were lost although they fit
        :param offers: what each publisher offers
        """
        if (not self.fast_dds or (self.holds(size) and not losing)
                or not offers or any(o != ReliabilityPolicy.RELIABLE for o in offers)):
            return ReliabilityPolicy.BEST_EFFORT
        return ReliabilityPolicy.RELIABLE

    def limit(self, size: int) -> str:
        """Return the sentence on a socket buffer that is too small for an image, or ''."""
        return self._too_small(f'an image of {size / 1e6:.1f} MB does', size)

    def _too_small(self, what: str, size: int) -> str:
        if not self.fast_dds or not self.network or size <= self.buffer:
            return ''
        setting = f'net.core.rmem_max={max(int(size * _MARGIN), 2**22)}'
        return (
            f'{what} not fit the {self.buffer / 1e6:.1f} MB that '
            f'the kernel lets wait in a socket; sudo sysctl -w {setting} (on the host of a '
            f'container), echo {setting} | sudo tee /etc/sysctl.d/60-images.conf to keep it, '
            'then start this node again')

    def cause(
        self, size: int, sizes: Collection[int], reliability: ReliabilityPolicy, offered: bool,
    ) -> str:
        """
        Return why images of a matched publisher are lost, and what mends it.

        :param size: of an image, in bytes
        :param sizes: of the images of all topics that come to this process
        :param reliability: that is requested
        :param offered: whether every publisher offers RELIABLE
        """
        if not self.fast_dds:
            return 'the middleware loses them; see its documentation on large messages'
        if not self.network:
            return (
                "they overrun the publisher's shared memory, or a socket; start this node "
                f'with {middleware.PROFILE_VARIABLE}=auto and no other profile, or the '
                'publisher with '
                f'export {middleware.profiles_variable()}={middleware.PROFILES}')
        best_effort = reliability == ReliabilityPolicy.BEST_EFFORT
        together = sum(sizes)
        limit = best_effort and (self.limit(size) or self._too_small(
            f'the images of {len(sizes)} cameras, {together / 1e6:.1f} MB where they come at '
            'once, do', together))
        if limit:
            return limit
        offer = '' if offered else 'let the publisher offer RELIABLE, '
        return (f'this machine or the network is too slow for them; {offer}'
                'lower their rate or size, or use transport: compressed')


def many(lost: int, received: int) -> bool:
    """Return whether more of the images were lost than may happen on a busy machine."""
    return lost >= 2 and lost > _MANY_LOST * (lost + received)


def missing_stamps(stamps: Sequence[float]) -> int:
    """
    Return how many images of a steady camera are missing between these stamps.

    :param stamps: in seconds, in the order of arrival, of one publisher. Those of a
        camera without a steady rate tell nothing: 0 is returned. Longer pauses are no loss.
    """
    steps: List[float] = [after - before for before, after in zip(stamps, stamps[1:])]
    if len(steps) < 5 or min(steps) <= 0:
        return 0
    period = sorted(steps)[len(steps) // 4]
    counts = [step / period for step in steps]
    steady = sum(abs(count - round(count)) < 0.25 for count in counts)
    # A publisher that sleeps between its images comes late by any time, a camera by whole periods.
    late = any(count > 1.25 and abs(count - round(count)) > 0.1 for count in counts)
    if steady < 0.8 * len(counts) or late:
        return 0
    return sum(max(round(count) - 1, 0) for step, count in zip(steps, counts) if step < _PAUSE)
