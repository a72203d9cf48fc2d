"""vLLM's server as an engine whose weights a trainer changes: token ids in and out, with the version of each token.

The server runs with VLLM_SERVER_DEV_MODE=1, which has the routes that pause it and change its weights, and with
--enable-scale-out --logprobs-mode processed_logprobs. Written for, and tried with, vLLM 0.32.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ConfigError, PolicyError, RequestRefused
from ..model.chat.sampling import Completion, Sampling
from .endpoint import Endpoint
from .remote_engine import PauseMode, RemoteEngine, completion_of, settings_of

MOST_PADDING = 4096
"""Rows of a head beyond the tokenizer's ids that a request can name."""
_NEVER = -100.0  # the least bias that vLLM takes


class VllmEngine(RemoteEngine):
    """See ``RemoteEngine``. It asks ``/inference/v1/generate``, the one route of vLLM's that tells versions."""

    health = "/v1/models"  # vLLM's /health answers with nothing

    def __init__(
        self,
        endpoint: Endpoint,
        model: str,
        max_context: int,
        version: int,
        weights_key: str | None = None,
        *,
        padding: Sequence[int] = (),
        extended: bool = False,
    ) -> None:
        """
        Args:
            weights_key: nobody asks for it: vLLM guards its paths below /v1 and /inference alone.
            padding: ids that the tokenizer does not know and the head has, of which none is drawn.
            extended: the server's workers have ``in_vllm.verigym_vllm_worker.FolderWeights``.
        """
        super().__init__(endpoint, model, max_context, version, weights_key)
        self._bias = {str(token_id): _NEVER for token_id in padding}
        self._extended = extended

    async def update_weights(
        self,
        version: int,
        update_info: Mapping[str, Any],
        *,
        mode: PauseMode = "abort",
        clear_cache: bool = False,
    ) -> None:
        """See ``RemoteEngine.update_weights``. What was computed before is never found again; what "keep" froze is
        computed anew.

        Args:
            update_info: {"path": a checkpoint's folder}.
            clear_cache: must be true where mode is "keep": vLLM would offer the old keys of what goes on to others.
        Raises:
            RequestRefused: the weights are of another model. Nothing was changed.
            PolicyError: a step failed. The server stays paused where its weights may be in disorder.
        """
        if mode == "keep" and not clear_cache:
            raise ConfigError("vLLM would give new requests the keys of old weights; use recompute, not keep")
        post = self._endpoint.post
        await post(f"/pause?mode={mode}&clear_cache=true", {})
        refused = await self._load(str(update_info["path"]))
        if refused is None:
            if mode == "keep":
                await post("/reset_prefix_cache?reset_running_requests=true", {})
            await post("/update_weight_version", {"new_version": str(version)})
            self._version = version
        await post("/resume", {})
        if refused is not None:
            raise RequestRefused(f"{self._endpoint.url('')} does not take the weights: {refused}")

    async def _load(self, path: str) -> str | None:
        """Why the workers did not, before they changed anything; None: they have the weights."""
        call = (
            {"method": "verigym_load", "kwargs": {"path": path}}
            if self._extended
            else {"method": "reload_weights", "kwargs": {"weights_path": path}}
        )
        answer = await self._endpoint.post("/collective_rpc", call)
        results = answer.get("results") if isinstance(answer, Mapping) else None
        told = [one for one in results or () if isinstance(one, Mapping)]
        if self._extended and (not told or len(told) != len(results or ())):
            raise PolicyError(f"{self._endpoint.url('/collective_rpc')} answered {str(answer)[:300]}")
        return next((str(one["refused"]) for one in told if "refused" in one), None)

    def _request(
        self, prompt_ids: Sequence[int], sampling: Sampling, stop_token_ids: Sequence[int]
    ) -> tuple[str, dict[str, Any]]:
        settings = settings_of(sampling, stop_token_ids) | {"logprobs": 0, "detokenize": bool(sampling.stop)}
        if self._bias:
            settings["logit_bias"] = self._bias
        body = {"model": self._model, "token_ids": list(prompt_ids), "sampling_params": settings}
        return "/inference/v1/generate", body

    def _completion(self, choice: Mapping[str, Any], version: int, url: str) -> Completion:
        told = choice.get("logprobs")
        content = told.get("content") if isinstance(told, Mapping) else None
        logprobs = (
            [one.get("logprob") if isinstance(one, Mapping) else None for one in content]
            if isinstance(content, list)
            else []
            if choice.get("token_ids") == []
            else None
        )
        return completion_of(choice, logprobs, _versions(choice, version), version, url)


def _versions(choice: Mapping[str, Any], version: int) -> list[int] | None:
    """The version of each token, ``version`` where its weights have had no number yet; None: the server tells none."""
    spans = choice.get("weight_versions")
    if not isinstance(spans, list):
        return None
    found: list[int] = []
    for span in spans:
        told = str(span["version"])
        found += [int(told) if told.isdecimal() else version] * (span["end"] - span["start"])
    return found
