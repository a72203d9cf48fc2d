"""One episode at the gateway: its limits, the turns it was given, and what its requests had to do with each other."""

import asyncio
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import aclosing
from contextvars import copy_context
from dataclasses import dataclass, replace
from time import monotonic

from starlette.types import ASGIApp

from ...errors import ChatFormatError, PolicyError, RequestRefused, VerigymError
from ...model.chat.actions import decode_action
from ...model.chat.messages import Message
from ...model.chat.sampling import Sampling
from ..policy import ContextFull, Entry, ObservingPolicy, Policy, Turn, streamed
from ..seeds import derive_seed
from ..tree import Growing, MessageTree, TreeBuilder
from .asked import Asked, GatewayError
from .branches import Branches, followed, following, last_turn, last_words, told_until, unanswered
from .drawing import Drawing

MODEL = "verigym"
"""The name that a harness gives the model, where nothing else is said."""
KEPT_ANSWERS = 64
OVER = 401
"""The status of a request after the episode's last: its key opens nothing more. Every client takes that for final; of
403 some try again for minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one episode may ask.

    Attributes:
        turns: that are sampled; a request that is sent again counts once.
        tokens: of one context, prompt and turn together.
        seconds: from the session's opening on; None: whoever runs the harness watches the clock.
        at_once: requests in work.
    """

    turns: int = 32
    tokens: int = 32_768
    seconds: float | None = None
    at_once: int = 8


@dataclass(slots=True)
class Counts:
    """What became of an episode's requests.

    Attributes:
        turns: sampled.
        repeats: requests that were given a turn which had been sampled for the same request before.
        changed: requests that left a known branch: messages were edited, dropped, compacted, or begun anew.
        undelivered: turns that nobody received whole and that nothing followed; they are not trained.
        refused: requests that got an error.
        format_errors: turns whose calls could not be read.
    """

    turns: int = 0
    repeats: int = 0
    changed: int = 0
    undelivered: int = 0
    refused: int = 0
    format_errors: int = 0


class Session:
    """An episode. Made by ``Gateway.open``."""

    def __init__(
        self,
        policy: Policy,
        sampling: Sampling,
        *,
        limits: Limits | None = None,
        override: bool = True,
        model: str = MODEL,
    ) -> None:
        """
        Args:
            policy: answers.
            sampling: of each turn; with a seed, each draw has one of its own.
            override: the temperature and the like are those of ``sampling`` whatever the harness says, as training
                needs it; False: what the harness says counts where it says anything. Its stop texts and its most
                tokens, up to those of ``sampling``, count in both cases.
            model: the name that requests must give.
        """
        self.id, self.key, self.model = secrets.token_urlsafe(12), secrets.token_urlsafe(32), model
        self.limits, self.counts = limits or Limits(), Counts()
        self.tools_app: ASGIApp | None = None
        """Serves the environment's tools by MCP; None: nobody does."""
        self.limit_met: str | None = None
        """"turn_limit", "token_limit" or "wall_clock": why the last request was refused; None: it was not, for that."""
        self.over = asyncio.Event()
        """Set when a request has met a limit that no other request can be under: turns, or seconds."""
        self.failure: BaseException | None = None
        """Why the policy could not answer the last request; None: it could."""
        self._policy, self._sampling, self._override = policy, sampling, override
        self._branches, self._drawings = Branches(), list[Drawing]()
        self._answers: OrderedDict[bytes, Drawing] = OrderedDict()
        self._context, self._opened, self._closed = copy_context(), monotonic(), False

    def adopt_context(self) -> None:
        """Turns are sampled in the caller's context from now on: its clock is told what was being asked when its time
        ran out."""
        self._context = copy_context()

    def admits(self, key: str) -> bool:
        """Whether a key is this episode's."""
        return not self._closed and hmac.compare_digest(key.encode("utf-8", "replace"), self.key.encode())

    def draw(self, asked: Asked, request: bytes, *, again: bool = False) -> Drawing:
        """The turn for a request: a new one, or the one that the same request has been given already.

        A request is the same where its bytes are and either it says that it is sent again (``again``), or nobody has
        received the first answer and nobody waits for it any more.

        The caller is its reader and calls ``release`` in the end.

        Args:
            request: what tells the same request: its dialect and its body.
        Raises:
            GatewayError: a limit, or another model's name.
        """
        try:
            return self._draw(asked, hashlib.blake2b(request, digest_size=16).digest(), again)
        except GatewayError:
            self.counts.refused += 1
            raise

    def _draw(self, asked: Asked, digest: bytes, again: bool) -> Drawing:
        if asked.model != self.model:
            raise GatewayError(
                404, f"there is no model {asked.model!r} here; this episode's is {self.model!r}",
                code="model_not_found", param="model",
            )  # fmt: skip
        known = self._answers.get(digest)
        if known is not None and not known.failed and (again or not (known.delivered or known.num_readers)):
            self.counts.repeats += 1
            known.num_readers += 1
            return known
        self._check_limits()
        matched = self._branches.match(asked.messages, asked.tools)
        self.counts.changed += matched.changed
        drawing = Drawing(matched.place, one_call=asked.one_call, tools=tuple(asked.tools))
        sampling = self._sampling_of(asked, len(self._drawings))
        self._drawings.append(drawing)
        self._answers[digest] = drawing
        while len(self._answers) > KEPT_ANSWERS:
            self._answers.popitem(last=False)
        drawing.begin(self._sample(drawing, asked, matched.conversation, sampling), self._context.copy())
        return drawing

    def _check_limits(self) -> None:
        limits = self.limits
        running = sum(not one.is_done for one in self._drawings)
        if self._closed:
            raise GatewayError(OVER, "the episode has ended", code="episode_ended")
        if limits.seconds is not None and monotonic() - self._opened > limits.seconds:
            self._end("wall_clock")
            raise GatewayError(OVER, f"the episode's {limits.seconds:g} s are over", code="wall_clock")
        if self.counts.turns + running >= limits.turns:
            self._end("turn_limit")
            raise GatewayError(OVER, f"the episode's {limits.turns} turns are used up", code="turn_limit")
        if running >= limits.at_once:
            raise GatewayError(
                429, f"{running} requests of this episode are in work, the most at once; send it again",
                code="rate_limit_exceeded",
            )  # fmt: skip

    def _end(self, limit: str) -> None:
        self.limit_met = limit
        self.over.set()

    def _sampling_of(self, asked: Asked, number: int) -> Sampling:
        own = self._sampling
        changes: dict[str, object] = {"stop": (*own.stop, *asked.stop), "max_context": self._most_context()}
        if asked.max_tokens is not None:
            changes["max_tokens"] = min(own.max_tokens, asked.max_tokens)
        if not self._override:
            wishes = {name: getattr(asked, name) for name in ("temperature", "top_p", "top_k", "seed")}
            changes |= {name: value for name, value in wishes.items() if value is not None}
        if "seed" not in changes and own.seed is not None:
            changes["seed"] = derive_seed(own.seed, "draw", number)
        try:
            return replace(own, **changes)  # type: ignore[arg-type]  # names of fields, values that Sampling checks
        except ValueError as error:
            raise GatewayError(400, str(error)) from None

    def _most_context(self) -> int:
        own = self._sampling.max_context
        return self.limits.tokens if own is None else min(own, self.limits.tokens)

    async def _sample(self, drawing: Drawing, asked: Asked, conversation: Sequence[Entry], sampling: Sampling) -> None:
        try:
            turn = await self._turn(drawing, asked, conversation, sampling)
        except asyncio.CancelledError:
            drawing.fail(GatewayError(OVER, "the episode has ended", code="episode_ended"))
            raise
        except Exception as error:  # whoever asked is told; what became of the episode is decided by who runs it
            self._note(error)
            drawing.fail(error)
            return
        self.limit_met = self.failure = None
        self.counts.turns += 1
        self.counts.format_errors += decode_action(turn.action).format_error is not None
        answered = drawing.end(turn)
        drawing.said = self._branches.put(drawing.place, turn, answered.message)

    async def _turn(self, drawing: Drawing, asked: Asked, conversation: Sequence[Entry], sampling: Sampling) -> Turn:
        async with aclosing(streamed(self._policy, conversation, asked.tools, sampling)) as parts:
            async for part in parts:
                if isinstance(part, Turn):
                    if part.finish_reason == "abort":
                        raise PolicyError("the engine aborted the turn")
                    return part
                drawing.push(part)
        raise PolicyError("the policy ended without a turn")

    def _note(self, error: Exception) -> None:
        if isinstance(error, ContextFull):
            self.limit_met = "token_limit"
        elif not isinstance(error, RequestRefused | ChatFormatError):
            self.failure = error

    @property
    def is_drawing(self) -> bool:
        """Whether a turn is being sampled."""
        return any(not one.is_done for one in self._drawings)

    def settle(self) -> list[Drawing]:
        """The turns that count, in the order in which they were asked for: those that somebody received whole, or that
        something followed. The others are counted."""
        done = [one for one in self._drawings if one.turn is not None]
        kept = [one for one in done if one.delivered or (one.said is not None and followed(one.said))]
        self.counts.undelivered = len(done) - len(kept)
        return kept

    def messages(self) -> tuple[Message, ...]:
        """The conversation of the last turn that counts, with what followed it."""
        kept = self.settle()
        if not kept or kept[-1].said is None:
            return ()
        return tuple(told_until(last_words(kept[-1].said)))

    def tree(self, observe: bool = True) -> MessageTree | None:
        """The tokens of all branches; None for a policy of text only.

        Args:
            observe: what the last turns were answered is part of it, though no turn followed.
        Raises:
            ValueError: an engine's log-probabilities are none.
        """
        builder, grown = TreeBuilder(), dict[int, Growing]()
        for one in self.settle():
            assert one.turn is not None
            if one.turn.tokens is None:
                return None
            before = last_turn(one.place)
            after = None if before is None else grown.get(id(before))
            leaf = builder.add(one.turn.tokens, told_until(one.place), one.turn.message, after)
            grown[id(one.said)] = leaf
        if observe:
            self._observe(builder, grown)
        return builder.build()

    def _observe(self, builder: TreeBuilder, grown: dict[int, Growing]) -> None:
        """Answers of tools behind which no turn is: they came with a request that was refused or failed."""
        if not isinstance(self._policy, ObservingPolicy):
            return
        for one in self.settle():
            if one.said is None or id(one.said) not in grown:
                continue
            for first in following(one.said):
                news = unanswered(first)
                if not news:
                    continue
                conversation: list[Entry] = [one.turn, *news] if one.turn is not None else []
                try:
                    found = self._policy.observed(conversation, self.limits.tokens)
                except VerigymError:  # no turn follows that would need it
                    continue
                if found is not None:
                    builder.observe(grown[id(one.said)], found, news)

    async def aclose(self) -> None:
        """End what is in work; nobody is let in any more."""
        self._closed = True
        for one in self._drawings:
            await one.aclose()
