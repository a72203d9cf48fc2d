"""An engine behind HTTP: ``verigym serve``, or vLLM. Token ids go in and come out; nothing is decoded on the way."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

from ..errors import ConfigError, PolicyError
from ..model.chat.keys import API_KEY, WEIGHTS_KEY, key_in
from ..model.chat.messages import ToolSpec
from ..model.chat.protocols import Parser, Rendered, Renderer
from ..model.chat.sampling import Completion, FinishReason, Sampling
from .asking import asking
from .endpoint import Endpoint
from .policy import Conversation, TokenPolicy, Turn

PauseMode = Literal["abort", "wait", "keep"]
_PROBE_TOKENS = 4
_FINISH_REASONS: Mapping[str, FinishReason] = {"stop": "stop", "length": "length", "abort": "abort"}


class RemoteEngine:
    """See ``model.chat.protocols.Engine``. Made by ``connect``.

    The log-probabilities of a policy must be of the distribution that its tokens were drawn from. A server says which
    it tells only by what it tells, so ``connect`` tries it: with top_k = 1 the one token that is left has the
    probability 1, and any other value shows a server that was started with another ``--logprobs-mode`` than
    processed_logprobs.

    Attributes:
        health: the path that answers, in JSON, where the server is there.
    """

    health: ClassVar[str] = "/health"

    def __init__(
        self, endpoint: Endpoint, model: str, max_context: int, version: int, weights_key: str | None = None
    ) -> None:
        """
        Args:
            weights_key: asked by the routes that change weights; None: the one in the environment (``WEIGHTS_KEY``),
                else the endpoint's own.
        """
        self._endpoint, self._model, self._max_context, self._version = endpoint, model, max_context, version
        self._weights_key = weights_key

    @classmethod
    async def connect(
        cls,
        base_url: str,
        model: str | None,
        *,
        max_context: int | None = None,
        version: int = 0,
        own: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """Ask a server for its model, and make sure of its log-probabilities.

        Args:
            base_url: the server's root, such as "http://localhost:8000"; the paths of the API are appended.
            model: the server's name of the model; None takes the only one it has.
            max_context: tokens of a prompt and its completion; None for what the server says.
            version: of the weights that the server has now, where it does not tell the version of each token.
            own: more of the constructor's arguments.
            options: of ``Endpoint``: concurrency, time-outs, retries, and the key, which else is found in
                VERIGYM_API_KEY or OPENAI_API_KEY.
        Raises:
            PolicyError: no server, or none that tells token ids.
            ConfigError: it lacks the model, says no context, or tells other log-probabilities.
        """
        endpoint, model, context = await find_model(base_url, model, max_context, **options)
        engine = cls(endpoint, model, context, version, **(own or {}))
        try:
            await engine._check_logprobs(base_url)
        except BaseException:
            await endpoint.aclose()
            raise
        return engine

    @property
    def policy_version(self) -> int:
        return self._version

    @property
    def max_context(self) -> int:
        return self._max_context

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, stop_token_ids: Sequence[int]
    ) -> Completion:
        """Sample one completion.

        A token's version is what the server tells; one that tells none (vLLM) gives every token the version from
        before the request, the oldest that can have sampled it.

        Raises:
            ContextFull: the server says that the prompt is longer than the context.
            PolicyError: it refused, gave no answer, or one without ids and log-probabilities of the same number.
        """
        version = self._version
        path, body = self._request(prompt_ids, sampling, stop_token_ids)
        url = self._endpoint.url(path)
        return self._completion(rows_of(await self._endpoint.post(path, body), "choices", url)[0], version, url)

    def _request(
        self, prompt_ids: Sequence[int], sampling: Sampling, stop_token_ids: Sequence[int]
    ) -> tuple[str, dict[str, Any]]:
        """(the path to ask, what it is asked)."""
        body: dict[str, Any] = {
            "model": self._model,
            "prompt": list(prompt_ids),
            "logprobs": 0,
            "return_token_ids": True,
            **settings_of(sampling, stop_token_ids),
        }
        return "/v1/completions", body

    def _completion(self, choice: Mapping[str, Any], version: int, url: str) -> Completion:
        """What the server's choice says. Raises PolicyError where it lacks ids or log-probabilities."""
        told = choice.get("logprobs")
        logprobs = told.get("token_logprobs") if isinstance(told, Mapping) else None
        return completion_of(choice, logprobs, choice.get("policy_version"), version, url)

    async def update_weights(
        self,
        version: int,
        update_info: Mapping[str, Any],
        *,
        mode: PauseMode = "abort",
        clear_cache: bool = False,
    ) -> None:
        """Pause the server, have it load weights, and let it go on.

        Args:
            version: of the new weights.
            update_info: what the server's way of loading asks for: of ``verigym serve`` {"path": a checkpoint's
                folder}, of vLLM what its weight transfer engine takes.
            mode: what becomes of the requests in work: ended with what they have, awaited, or frozen and gone on with.
            clear_cache: what was frozen goes on over keys and values of the new weights, not of the old.
        Raises:
            PolicyError: a step failed. The server stays paused where its weights may be in disorder.
        """
        key = key_in(WEIGHTS_KEY, self._weights_key)

        async def post(path: str, body: Any) -> None:
            await self._endpoint.post(path, body, key=key)

        await post(f"/pause?mode={mode}&clear_cache={str(clear_cache).lower()}", {})
        await post("/start_weight_update", {})
        await post("/update_weights", {"update_info": dict(update_info)})
        await post("/finish_weight_update", {"weight_version": str(version)})
        self._version = version
        await post("/resume", {})

    async def aclose(self) -> None:
        """Close the connections. May be called twice."""
        await self._endpoint.aclose()

    async def _check_logprobs(self, base_url: str) -> None:
        sampling = Sampling(max_tokens=_PROBE_TOKENS, top_k=1, temperature=1.0)
        probe = await self.generate([0], sampling, ())
        if any(abs(value) > 1e-4 for value in probe.logprobs):
            raise ConfigError(
                f"{base_url} tells log-probabilities of another distribution than it draws from (with top_k = 1 they "
                f"are {probe.logprobs}); start it with --logprobs-mode processed_logprobs"
            )


class RemoteTokenPolicy:
    """A ``TokenPolicy`` over a server that is connected to when it is first asked."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[RemoteEngine]],
        renderer: Renderer,
        parser: Parser,
        *,
        url: str = "a server",
    ) -> None:
        """
        Args:
            url: of the server, for messages.
        """
        self._url = url
        self._connect, self._renderer, self._parser = connect, renderer, parser
        self._connecting = asyncio.Lock()
        self._engine: RemoteEngine | None = None

    async def respond(self, conversation: Conversation, tools: Sequence[ToolSpec], sampling: Sampling) -> Turn:
        """See ``Policy``. Raises ConfigError where the server lacks what a policy needs."""
        with asking(self._url):  # also while another episode connects
            async with self._connecting:
                if self._engine is None:
                    self._engine = await self._connect()
        return await TokenPolicy(self._engine, self._renderer, self._parser).respond(conversation, tools, sampling)

    def observed(self, conversation: Conversation, max_context: int) -> Rendered | None:
        if self._engine is None:
            return None
        return TokenPolicy(self._engine, self._renderer, self._parser).observed(conversation, max_context)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._engine is not None:
            await self._engine.aclose()


async def find_model(
    base_url: str, model: str | None, max_context: int | None = None, **options: Any
) -> tuple[Endpoint, str, int]:
    """(an endpoint of a server, its name of the model, tokens of its context); arguments as ``RemoteEngine.connect``.

    Raises:
        PolicyError: no server. ConfigError: it lacks the model, or says no context.
    """
    endpoint = Endpoint(base_url, **{"api_key_env": (API_KEY, "OPENAI_API_KEY"), **options})
    try:
        models = rows_of(await endpoint.get("/v1/models"), "data", endpoint.url("/v1/models"))
        names = [str(row.get("id")) for row in models]
        if model is None and len(names) == 1:
            model = names[0]
        if model not in names:
            raise ConfigError(f"{base_url} has no model {model!r}; it has {', '.join(names)}")
        row = models[names.index(model)]
        context = row.get("max_model_len") if max_context is None else max_context
        if not isinstance(context, int):
            raise ConfigError(f"{base_url} does not say how long the context of {model!r} is; give max_context")
    except BaseException:
        await endpoint.aclose()
        raise
    return endpoint, model, context


def settings_of(sampling: Sampling, stop_token_ids: Sequence[int]) -> dict[str, Any]:
    """Of a request, by the names that vLLM and ``verigym serve`` share.

    What is neutral is said too: a server takes what a request leaves out from the checkpoint's generation_config.json,
    and would draw from another distribution.
    """
    told: dict[str, Any] = {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repetition_penalty": 1.0,
        "stop_token_ids": list(stop_token_ids),
        # The stop tokens are the format's; the model's own end of text is one of them or no end.
        "ignore_eos": True,
    }
    if sampling.stop:
        told["stop"] = list(sampling.stop)
    if sampling.seed is not None:
        told["seed"] = sampling.seed
    return told


def completion_of(choice: Mapping[str, Any], logprobs: Any, versions: Any, version: int, url: str) -> Completion:
    """
    Args:
        choice: of a server's answer.
        logprobs, versions: of its tokens, where they are what they should be.
        version: of all tokens, where the server tells none.
    Raises:
        PolicyError: it gave no ids and log-probabilities of the same number.
    """
    token_ids = choice.get("token_ids")
    if not isinstance(token_ids, list) or not isinstance(logprobs, list) or None in logprobs:
        raise PolicyError(
            f"{url} gave no token ids or no log-probabilities; it must know return_token_ids and logprobs"
        )
    if len(token_ids) != len(logprobs):
        raise PolicyError(f"{url} gave {len(token_ids)} token ids and {len(logprobs)} log-probabilities")
    if not isinstance(versions, list) or len(versions) != len(token_ids):
        versions = [version] * len(token_ids)
    reason = choice.get("stop_reason")
    return Completion(
        token_ids=tuple(token_ids),
        logprobs=tuple(logprobs),
        policy_version=tuple(versions),
        finish_reason=_FINISH_REASONS.get(str(choice.get("finish_reason")), "abort"),
        stop_reason=reason if isinstance(reason, int | str) else None,
    )


def rows_of(answer: Any, name: str, url: str) -> list[Mapping[str, Any]]:
    """The list of objects that an answer has under a name. Raises PolicyError where it has none."""
    rows = answer.get(name) if isinstance(answer, Mapping) else None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, Mapping) for row in rows):
        raise PolicyError(f"{url} answered without {name}: {str(answer)[:300]}")
    return rows
