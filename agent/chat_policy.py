"""``ChatPolicy``: any server that speaks OpenAI's chat completions with tools."""

import json
from collections.abc import Sequence
from typing import Any

from ..errors import PolicyError
from ..model.chat.api import from_openai_message, to_openai_messages
from ..model.chat.messages import ToolSpec
from ..model.chat.sampling import Sampling
from .endpoint import Endpoint
from .policy import ContextFull, Conversation, Turn


class ChatPolicy:
    """Asks a chat-completions server for each turn; its turns are text without token ids."""

    def __init__(self, base_url: str, model: str, **options: Any) -> None:
        """
        Args:
            base_url: such as "http://localhost:8000/v1"; "/chat/completions" is appended.
            model: the server's name of the model.
            options: of ``Endpoint``: key, concurrency, time-outs, retries.
        """
        self._endpoint = Endpoint(base_url, **options)
        self._model = model

    async def respond(self, conversation: Conversation, tools: Sequence[ToolSpec], sampling: Sampling) -> Turn:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": to_openai_messages(
                [entry.message if isinstance(entry, Turn) else entry for entry in conversation]
            ),
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        if sampling.top_k:
            body["top_k"] = sampling.top_k
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        if tools:
            body["tools"] = [spec.to_openai() for spec in tools]
        try:
            answer = await self._endpoint.post("/chat/completions", body)
        except ContextFull:
            # Servers count the room asked for the answer to the context. A prompt that fits has what is left of it.
            del body["max_tokens"]
            answer = await self._endpoint.post("/chat/completions", body)
        try:
            choice = answer["choices"][0]
            message, action = from_openai_message(choice["message"])
            finish_reason = choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, AttributeError):
            where = self._endpoint.url("/chat/completions")
            raise PolicyError(f"{where} answered without choices[0].message: {json.dumps(answer)[:300]}") from None
        return Turn(message=message, action=action, finish_reason="length" if finish_reason == "length" else "stop")

    async def aclose(self) -> None:
        """Close the connections. May be called twice."""
        await self._endpoint.aclose()
