"""The run itself: engines share their rounds between sequences, groups wait for their last episode, updates for groups.

Events in time, none of them on a clock of this machine. The rules of starting and taking groups are those of
``loops.asynchronous`` (and of ``loops.reinforce`` without a lag).
"""

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from .workload import Episode, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How a run is laid out.

    Attributes:
        num_tasks, group_size: of a step.
        max_lag: steps that sampling runs ahead; None: sampling and training take turns.
        concurrency: episodes at once.
        engines: that sample.
        trainer_gpus: that train.
    """

    num_tasks: int
    group_size: int
    max_lag: int | None
    concurrency: int
    engines: int
    trainer_gpus: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run comes to, after its first steps.

    Attributes:
        step_seconds: from one step's end to the next one's, mean.
        tokens_per_second: sampled.
        engines_busy, trainer_busy: shares of the time in which they worked.
        lag_mean, lag_max: steps between the weights that began an episode's last turn and those that its update met.
    """

    step_seconds: float
    tokens_per_second: float
    engines_busy: float
    trainer_busy: float
    lag_mean: float
    lag_max: int


@dataclass(slots=True)
class _Group:
    number: int
    left: int
    version: int
    tokens: int = 0


@dataclass(slots=True)
class _Sequence:
    prompt: int
    tokens: int
    done: Callable[[], None]
    ends_at: float = 0.0


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), event))

    def step(self) -> bool:
        if not self._events:
            return False
        self.now, _, event = heapq.heappop(self._events)
        event()
        return True


class _Engine:
    """Rounds shared by all sequences in work. Progress is counted in rounds that each has had, so that one event says
    when the first sequence ends, however many there are."""

    def __init__(self, clock: _Clock, workload: Workload) -> None:
        self._clock, self._speed = clock, workload.engine
        self._inside: list[tuple[float, int, _Sequence]] = []
        self._waiting: list[_Sequence] = []
        self._order = itertools.count()
        self._rounds, self._at, self._epoch = 0.0, 0.0, 0
        self._paused, self._blocked_until = False, 0.0
        self.busy = 0.0
        self.sampled = 0

    @property
    def load(self) -> int:
        return len(self._inside) + len(self._waiting)

    def add(self, sequence: _Sequence) -> None:
        self._advance()
        self._waiting.append(sequence)
        self._admit()
        self._plan()

    def pause(self, paused: bool) -> None:
        self._advance()
        self._paused = paused
        self._plan()

    def _admit(self) -> None:
        while self._waiting and len(self._inside) < self._speed.max_batch:
            sequence = self._waiting.pop(0)
            # A prompt holds up everybody's rounds.
            start = max(self._clock.now, self._blocked_until)
            self._blocked_until = start + sequence.prompt * self._speed.prompt_seconds
            sequence.ends_at = self._rounds + sequence.tokens
            heapq.heappush(self._inside, (sequence.ends_at, next(self._order), sequence))

    def _round_seconds(self) -> float:
        return self._speed.token_seconds + self._speed.crowd_seconds * len(self._inside)

    def _advance(self) -> None:
        """Count the rounds since the last look."""
        begin = max(self._at, min(self._blocked_until, self._clock.now))
        if self._inside and not self._paused:
            self._rounds += max(0.0, self._clock.now - begin) / self._round_seconds()
            self.busy += self._clock.now - self._at
        self._at = self._clock.now

    def _plan(self) -> None:
        self._epoch += 1
        if not self._inside or self._paused:
            return
        epoch, left = self._epoch, max(0.0, self._inside[0][0] - self._rounds)
        wait = max(0.0, self._blocked_until - self._clock.now) + left * self._round_seconds()
        self._clock.after(wait, lambda: self._ended(epoch))

    def _ended(self, epoch: int) -> None:
        if epoch != self._epoch:
            return
        self._advance()
        ended = []
        while self._inside and self._inside[0][0] <= self._rounds + 1e-6:
            ended.append(heapq.heappop(self._inside)[2])
        self._admit()
        self._plan()
        for sequence in ended:
            self.sampled += sequence.tokens
            sequence.done()


@dataclass(slots=True)
class _Run:
    workload: Workload
    shape: Shape
    draw: random.Random
    clock: _Clock = field(default_factory=_Clock)
    engines: list[_Engine] = field(default_factory=list)
    version: int = 0
    started: int = 0
    open: int = 0
    running: dict[int, _Group] = field(default_factory=dict)
    ready: list[_Group] = field(default_factory=list)
    waiting: list[tuple[_Group, Episode]] = field(default_factory=list)
    inside: int = 0
    training: bool = False
    trainer_busy: float = 0.0
    ends: list[tuple[float, int, float, float]] = field(default_factory=list)
    lags: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engines = [_Engine(self.clock, self.workload) for _ in range(self.shape.engines)]

    def begin_groups(self) -> None:
        shape = self.shape
        ahead = 1 if shape.max_lag is None else shape.max_lag + 1
        while self.open < ahead * shape.num_tasks:
            if shape.max_lag is None and self.training:
                return
            if (
                shape.max_lag is not None
                and len(self.running) * shape.group_size >= shape.concurrency + shape.group_size
            ):
                return
            group = _Group(number=self.started, left=shape.group_size, version=self.version)
            self.started += 1
            self.open += 1
            self.running[group.number] = group
            self.waiting += [(group, self.draw.choice(self.workload.episodes)) for _ in range(shape.group_size)]
            self.begin_episodes()

    def begin_episodes(self) -> None:
        while self.waiting and self.inside < self.shape.concurrency:
            group, episode = self.waiting.pop(0)
            self.inside += 1
            self.turn(group, episode, 0)

    def turn(self, group: _Group, episode: Episode, number: int) -> None:
        if number == len(episode.turns):
            self.clock.after(episode.grading_seconds, lambda: self.ended(group, episode))
            return
        turn = episode.turns[number]
        engine = min(self.engines, key=lambda one: one.load)

        def answered() -> None:
            self.clock.after(turn.tool_seconds, lambda: self.turn(group, episode, number + 1))

        engine.add(_Sequence(prompt=turn.prompt_tokens, tokens=turn.sampled_tokens, done=answered))

    def ended(self, group: _Group, episode: Episode) -> None:
        self.inside -= 1
        group.left -= 1
        group.tokens += episode.num_tokens
        if not group.left:
            del self.running[group.number]
            self.ready.append(group)
        self.begin_episodes()
        self.begin_groups()
        self.begin_step()

    def begin_step(self) -> None:
        count = self.shape.num_tasks
        self.ready.sort(key=lambda group: group.number)
        if self.training or len(self.ready) < count:
            return
        last = self.ready[count - 1].number
        if any(number < last for number in self.running):  # groups are taken in the order of their starts
            return
        taken, self.ready = self.ready[:count], self.ready[count:]
        self.training = True
        self.lags += [self.version - group.version for group in taken]
        trainer = self.workload.trainer
        tokens = sum(group.tokens for group in taken)
        seconds = trainer.step_seconds * (tokens / trainer.step_tokens) * (trainer.gpus / self.shape.trainer_gpus)
        self.trainer_busy += seconds
        self.clock.after(seconds, lambda: self.updated(len(taken)))

    def updated(self, count: int) -> None:
        for engine in self.engines:
            engine.pause(True)
        self.clock.after(self.workload.trainer.publish_seconds, lambda: self.published(count))

    def published(self, count: int) -> None:
        for engine in self.engines:
            engine.pause(False)
        self.version += 1
        self.training = False
        self.open -= count
        busy = sum(engine.busy for engine in self.engines)
        self.ends.append((self.clock.now, sum(engine.sampled for engine in self.engines), busy, self.trainer_busy))
        self.begin_groups()
        self.begin_step()


def simulate(workload: Workload, shape: Shape, *, steps: int = 40, seed: int = 0) -> Outcome:
    """Run so many steps, and say what the later three quarters of them came to: the first fill what is empty.

    Args:
        steps: at least 4.
    """
    if steps < 4:
        raise ValueError(f"{steps} steps say nothing of a run; take 4 or more")
    run = _Run(workload=workload, shape=shape, draw=random.Random(seed))
    run.begin_groups()
    while len(run.ends) < steps and run.clock.step():
        pass
    first, last = run.ends[steps // 4 - 1], run.ends[-1]
    seconds = last[0] - first[0]
    lags = run.lags[len(run.lags) // 4 :]
    return Outcome(
        step_seconds=seconds / (steps - steps // 4),
        tokens_per_second=(last[1] - first[1]) / seconds,
        engines_busy=(last[2] - first[2]) / (seconds * shape.engines),
        trainer_busy=(last[3] - first[3]) / seconds,
        lag_mean=sum(lags) / max(1, len(lags)),
        lag_max=max(lags, default=0),
    )
