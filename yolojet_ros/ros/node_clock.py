"""The clock that stamps are compared with, and what is wrong where ages are odd."""

from __future__ import annotations

from dataclasses import dataclass
import time

from rclpy.node import Node

OTHER_CLOCK = 60.0  # s of age that no load explains
_STALE = 0.5  # s of age that are worth a warning


@dataclass(frozen=True)
class NodeClock:
    """
    What a node takes for now.

    :ivar simulated: whether `use_sim_time` is set, so that `topic` tells the time
    :ivar now: seconds; 0 as long as a simulated clock was told nothing
    :ivar topic: full name of `/clock`
    :ivar publishers: of `topic`
    """

    simulated: bool = False
    now: float = 0.0
    topic: str = '/clock'
    publishers: int = 0

    @staticmethod
    def of(node: Node) -> NodeClock:
        """Return what the clock of a node is at this moment."""
        clock, topic = node.get_clock(), node.resolve_topic_name('/clock')
        return NodeClock(clock.ros_time_is_active, clock.now().nanoseconds * 1e-9, topic,
                         node.count_publishers(topic))

    def problem(self, age: float) -> str:
        """
        Return what is wrong with the time, in one sentence, or ''.

        :param age: of results, in seconds: how long before now their images are stamped
        """
        if self.simulated and not self.now:
            found = 'sends nothing' if self.publishers else 'has no publisher'
            return (f'use_sim_time is set, but {self.topic} {found}, and time stands at 0; start '
                    'the simulator, or the bag with --clock, or set use_sim_time to false')
        if abs(age) <= _STALE:
            return ''
        if 0 < age <= OTHER_CLOCK:
            return f'results are {age:.2f} s older than their images; check clocks and load'
        if self.simulated:
            return self._beside_topic(age)
        if age < 0:
            return (f'images are stamped {-age:.2f} s in the future; set the clocks alike, or '
                    'use_sim_time')
        return (f'images are stamped {age:.0f} s in the past, by another clock; set '
                'use_sim_time for bags and simulators, or stamp them in the driver')

    def _beside_topic(self, age: float) -> str:
        """Say that images are not stamped by the simulated clock."""
        if abs(age) <= OTHER_CLOCK:
            return (f'images are stamped {-age:.2f} s ahead of {self.topic}; publish that more '
                    'often, or stamp them by it')
        if abs(self.now - age - time.time()) < OTHER_CLOCK:
            return ('images are stamped with system time, but use_sim_time is set and '
                    f'{self.topic} tells {self.now:.0f} s; set use_sim_time for the camera '
                    'driver, too, or to false here')
        return (f'images are stamped {abs(age):.0f} s {"after" if age < 0 else "before"} what '
                f'{self.topic} tells, by another clock; take both from one simulator or bag, or '
                'stamp them in the driver')
