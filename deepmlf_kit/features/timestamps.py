"""Time stamps of a stream made steady: a wild one is mended, a clock that starts over goes on.

Containers bring all kinds: stamps that begin anywhere or below zero, one bit that flipped in a bad reception, a
recorder's clock that was set back in mid-recording. `SteadyClock` sees a stream's stamps one by one, with the next few in
sight, and gives times that only grow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")

_AHEAD = 3  # stamps in sight beyond the one that is judged
_UNKNOWN = 32  # stamps in sight as long as none is known
LARGEST_GAP = 30.0
"""Seconds without a frame that are believed of one stream alone; a longer jump is a clock that was set anew."""

_LARGEST_FIRST_GAP = 10.0  # seconds between the first frame and the second


class SteadyClock(Generic[Item]):
    """Times of one stream's packets or frames.

    Args:
        slack: seconds by which stamps may run backwards, as those of packets do where frames are reordered.
        end: time at which the clip is known to end; jumps up to there are believed, however large.

    Attributes:
        wrong: stamps that were mended.
    """

    def __init__(self, slack: float = 0.0, end: float | None = None) -> None:
        self.wrong = 0
        self._slack, self._end = slack, end
        self._ahead: deque[tuple[float | None, float, Item]] = deque()
        self._offset = 0.0
        self._last: float | None = None
        self._due = 0.0  # when the next one is expected
        self._step = 0.04

    def run(self, items: Iterable[tuple[float | None, float, Item]]) -> Iterator[tuple[float, Item]]:
        """(time, item) of (stamp or None, duration, item), all in seconds, in the stream's order."""
        for item in items:
            yield from self.push(*item)
        yield from self.finish()

    def push(self, stamp: float | None, duration: float, item: Item) -> Iterator[tuple[float, Item]]:
        """Take the next one; gives those whose times are now known."""
        if stamp is not None and self._last is None:
            self._count_back(stamp)
        self._ahead.append((stamp, duration, item))
        unknown = self._last is None and all(stamp is None for stamp, _, _ in self._ahead)
        if len(self._ahead) > (_UNKNOWN if unknown else _AHEAD):
            yield self._first()

    def finish(self) -> Iterator[tuple[float, Item]]:
        """The rest, at the stream's end."""
        while self._ahead:
            yield self._first()

    def _count_back(self, stamp: float) -> None:
        """Give stamps to those that came without one before the very first that has one."""
        for place in range(len(self._ahead) - 1, -1, -1):
            other, duration, item = self._ahead[place]
            if other is None:
                stamp -= duration if 0 < duration < LARGEST_GAP else self._step
                self._ahead[place] = (stamp, duration, item)

    def _first(self) -> tuple[float, Item]:
        stamp, duration, item = self._ahead.popleft()
        following = [other + self._offset for other, _, _ in self._ahead if other is not None]
        if stamp is None:
            time = self._due
        elif self._last is None:
            time = self._opening(stamp, duration, following)
        else:
            time = self._judged(stamp + self._offset, following)
        if self._last is not None and 0 < time - self._last < 1:
            self._step = time - self._last
        self._last = time if self._last is None else max(time, self._last)
        self._due = self._last + (duration if 0 < duration < LARGEST_GAP else self._step)
        return time, item

    def _opening(self, time: float, duration: float, following: list[float]) -> float:
        """The first stamp has none before it; the next two say whether it can be right."""
        if len(following) < 2 or abs(following[1] - following[0]) > 1:
            return time
        if time - self._slack > following[0] or following[0] - time > _LARGEST_FIRST_GAP:
            self.wrong += 1
            return following[0] - (duration if 0 < duration < LARGEST_GAP else self._step)
        return time

    def _judged(self, time: float, following: list[float]) -> float:
        assert self._last is not None
        earliest = self._last - self._slack
        if time <= earliest:
            if any(other > earliest for other in following) or not following:
                return self._mended(time)
            self._offset += self._due - time  # all that follow are as early: the clock was set back
            return self._due
        if any(earliest < other <= time - self._slack for other in following[:2]):
            return self._mended(time)  # the next ones are where this one should have been
        ahead = time - self._due
        if ahead > LARGEST_GAP and not (self._end is not None and time <= self._end):
            if not following:
                return self._mended(time)
            self._offset -= ahead
            return self._due
        if not following and ahead > 1 and self._end is not None and time > self._end:
            return self._mended(time)
        return time

    def _mended(self, time: float) -> float:
        if abs(time - self._due) > 0.5 * self._step:  # a duplicate by rounding is no damage
            self.wrong += 1
        return self._due
