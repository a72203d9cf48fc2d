"""How likely a server's model finds given tokens: ``verigym serve``, or vLLM. Ids go in, and nothing is decoded."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError, PolicyError, RequestRefused
from .endpoint import Endpoint
from .remote_engine import find_model, rows_of


class RemoteScorer:
    """Log-probabilities at temperature 1 of tokens that another model sampled. Made by ``connect``."""

    def __init__(self, endpoint: Endpoint, model: str, max_context: int) -> None:
        self._endpoint, self._model, self.max_context = endpoint, model, max_context

    @classmethod
    async def connect(cls, base_url: str, model: str | None, **options: Any) -> "RemoteScorer":
        """Ask a server for its model, and try whether it tells the log-probabilities of a prompt.

        Args:
            base_url, model, options: as ``RemoteEngine.connect``.
        Raises:
            PolicyError: no server. ConfigError: it lacks the model, or does not tell them.
        """
        endpoint, model, context = await find_model(base_url, model, **options)
        scorer = cls(endpoint, model, context)
        try:
            await scorer.score((0, 0))
        except BaseException as error:
            await endpoint.aclose()
            if isinstance(error, RequestRefused | Untold):
                raise ConfigError(
                    f"{base_url} does not tell the log-probabilities of given tokens ({error}); a teacher needs a "
                    "server that knows echo with logprobs on /v1/completions, such as verigym serve or vLLM"
                ) from None
            raise
        return scorer

    async def score(self, token_ids: Sequence[int]) -> np.ndarray:
        """[T] float32 nats of each token after those before it; NaN of the first, which nothing predicts.

        Raises:
            ContextFull: they are more than the server's context holds beside one token more.
            Untold: the answer has not one log-probability for each.
            PolicyError: the server refused, or gave no answer.
        """
        body = {
            "model": self._model,
            "prompt": list(token_ids),
            "echo": True,
            "logprobs": 0,
            "max_tokens": 1,  # vLLM takes no less
            "temperature": 1.0,
            "ignore_eos": True,
        }
        answer = await self._endpoint.post("/v1/completions", body)
        url = self._endpoint.url("/v1/completions")
        told = rows_of(answer, "choices", url)[0].get("logprobs")
        return _column(told.get("token_logprobs") if isinstance(told, dict) else None, len(token_ids), url)

    async def aclose(self) -> None:
        """Close the connections. May be called twice."""
        await self._endpoint.aclose()


class Untold(PolicyError):
    """An answer without what was asked for."""


def _column(values: Any, count: int, url: str) -> np.ndarray:
    if not isinstance(values, list) or len(values) < count:
        has = f"{len(values)} log-probabilities" if isinstance(values, list) else "no log-probabilities"
        raise Untold(f"{url} has {has} for a prompt of {count} tokens")
    numbers = values[1:count]
    if any(not isinstance(value, int | float) or not math.isfinite(value) or value > 1e-3 for value in numbers):
        raise Untold(f"{url} tells something else than log-probabilities")
    return np.array([math.nan, *numbers], dtype=np.float32)
