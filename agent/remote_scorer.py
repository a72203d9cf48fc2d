"""How likely a server's model finds given tokens: ``verigym serve``, or vLLM. Ids go in, and nothing is decoded."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeGuard

import numpy as np

from ..errors import ConfigError, PolicyError, RequestRefused
from .endpoint import Endpoint
from .remote_engine import find_model, rows_of

Form = Literal["echo", "prompt_logprobs"]
FORMS: tuple[Form, ...] = ("echo", "prompt_logprobs")


class RemoteScorer:
    """Log-probabilities at temperature 1 of tokens that another model sampled, and of those that it finds likeliest in
    their places. Made by ``connect``."""

    def __init__(self, endpoint: Endpoint, model: str, max_context: int, *, form: Form = "echo") -> None:
        """
        Args:
            form: how the server is asked: OpenAI's "echo" with logprobs, or vLLM's "prompt_logprobs".
        """
        self._endpoint, self._model, self.max_context, self._form = endpoint, model, max_context, form

    @classmethod
    async def connect(cls, base_url: str, model: str | None, *, num_top: int = 0, **options: Any) -> "RemoteScorer":
        """Ask a server for its model, and try whether it tells the log-probabilities of a prompt.

        Args:
            base_url, model, options: as ``RemoteEngine.connect``.
            num_top: likeliest tokens that it is to tell in each place.
        Raises:
            PolicyError: no server. ConfigError: it lacks the model, or does not tell them.
        """
        endpoint, model, context = await find_model(base_url, model, **options)
        problems: list[str] = []
        try:
            for form in FORMS:
                scorer = cls(endpoint, model, context, form=form)
                try:
                    await (scorer.likeliest((0, 0), num_top) if num_top else scorer.score((0, 0)))
                except (RequestRefused, Untold) as error:
                    problems.append(f"{form}: {error}")
                else:
                    return scorer
        except BaseException:
            await endpoint.aclose()
            raise
        await endpoint.aclose()
        told = f", and of the {num_top} likeliest in their places" if num_top else ""
        raise ConfigError(
            f"{base_url} does not tell the log-probabilities of given tokens{told} ({'; '.join(problems)}); a teacher "
            "needs a server that knows echo with logprobs on /v1/completions, or prompt_logprobs, such as verigym "
            "serve or vLLM" + (" (vllm serve --max-logprobs), or a smaller divergence.support" if num_top else "")
        )

    async def score(self, token_ids: Sequence[int]) -> np.ndarray:
        """[T] float32 nats of each token after those before it; NaN of the first, which nothing predicts.

        Raises:
            ContextFull: they are more than the server's context holds beside one token more.
            Untold: the answer has not one log-probability for each.
            PolicyError: the server refused, or gave no answer.
        """
        answer, url = await self._ask(token_ids, 0)
        if self._form == "echo":
            return _column(_of(answer, "logprobs", "token_logprobs"), len(token_ids), url)
        rows = _rows(answer.get("prompt_logprobs"), len(token_ids), url)
        values = [row.get(token) for row, token in zip(rows, token_ids[1:], strict=True)]
        return _column([None, *values], len(token_ids), url)

    async def likeliest(self, token_ids: Sequence[int], count: int) -> np.ndarray:
        """[T, 2, K] float32, of the K likeliest tokens in each place their ids and their nats; NaN of the first place.

        Raises:
            As ``score``. Untold: also where it tells fewer.
        """
        answer, url = await self._ask(token_ids, count)
        told = _of(answer, "logprobs", "top_logprobs") if self._form == "echo" else answer.get("prompt_logprobs")
        found = np.full((len(token_ids), 2, count), np.nan, np.float32)
        for place, row in enumerate(_rows(told, len(token_ids), url), start=1):
            best = sorted(row.items(), key=lambda one: (-one[1], one[0]))[:count]
            if len(best) < count:
                raise Untold(f"{url} tells of {len(best)} tokens in a place, and {count} were asked for")
            found[place] = np.array(best, np.float32).T
        return found

    async def _ask(self, token_ids: Sequence[int], num_top: int) -> tuple[Mapping[str, Any], str]:
        own = {"echo": True, "logprobs": num_top, "return_tokens_as_token_ids": True}
        body = {
            "model": self._model,
            "prompt": list(token_ids),
            "max_tokens": 1,  # vLLM takes no less
            "temperature": 1.0,
            "ignore_eos": True,
            **(own if self._form == "echo" else {"prompt_logprobs": num_top}),
        }
        url = self._endpoint.url("/v1/completions")
        return rows_of(await self._endpoint.post("/v1/completions", body), "choices", url)[0], url

    async def aclose(self) -> None:
        """Close the connections. May be called twice."""
        await self._endpoint.aclose()


class Untold(PolicyError):
    """An answer without what was asked for."""


def _of(answer: Mapping[str, Any], outer: str, inner: str) -> Any:
    told = answer.get(outer)
    return told.get(inner) if isinstance(told, dict) else None


def _column(values: Any, count: int, url: str) -> np.ndarray:
    if not isinstance(values, list) or len(values) < count:
        has = f"{len(values)} log-probabilities" if isinstance(values, list) else "no log-probabilities"
        raise Untold(f"{url} has {has} for a prompt of {count} tokens")
    numbers = values[1:count]
    if not all(map(_is_logprob, numbers)):
        raise Untold(f"{url} tells something else than log-probabilities")
    return np.array([math.nan, *numbers], dtype=np.float32)


def _rows(values: Any, count: int, url: str) -> list[dict[int, float]]:
    """Of each place after the first: id -> nats, from {"token_id:7": -0.5} or {"7": {"logprob": -0.5}}."""
    if not isinstance(values, list) or len(values) < count:
        raise Untold(f"{url} does not tell the likeliest tokens of a prompt")
    found = []
    for row in values[1:count]:
        told: dict[int, float] = {}
        for name, value in row.items() if isinstance(row, dict) else ():
            token, number = str(name).removeprefix("token_id:"), value
            if isinstance(value, dict):
                number = value.get("logprob")
            if not token.isdecimal() or not _is_logprob(number):
                raise Untold(
                    f"{url} tells something else than ids and log-probabilities ({name!r:.40}: {number!r:.40})"
                )
            told[int(token)] = number
        found.append(told)
    return found


def _is_logprob(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value) and value <= 1e-3
