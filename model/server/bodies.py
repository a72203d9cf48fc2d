"""What the routes take. Every field does what OpenAI's or vLLM's interface says, or must have its neutral value: a
setting is never taken and left aside."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..chat.sampling import MOST_TOP_LOGPROBS, Sampling
from ..web.json_body import BodyError

Value = TypeVar("Value")
Number = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
MOST_CHOICES = 128
"""Completions that one request may ask for, over all its prompts."""
MOST_STOPS = 1024
"""Texts, or ids, that end an answer; each is looked for behind every token."""


class StreamOptions(BaseModel):
    """OpenAI's; ``include_usage`` adds a last event with the counts of tokens."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool = False
    continuous_usage_stats: Literal[False] = False
    include_obfuscation: bool = False


class SamplingBody(BaseModel):
    """What completions and chat have in common."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    include_stop_str_in_output: bool = False
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None

    # Taken because clients send them; each only with the value that changes nothing.
    frequency_penalty: Number | None = None
    presence_penalty: Number | None = None
    repetition_penalty: Number | None = None
    logit_bias: dict[str, Any] | None = None
    skip_special_tokens: Literal[False] | None = None
    spaces_between_special_tokens: Literal[True] | None = None
    # About the caller and the account, not about the answer.
    user: str | None = None
    metadata: Any = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @model_validator(mode="after")
    def _only_what_is_done(self) -> "SamplingBody":
        neutral = {"frequency_penalty": 0, "presence_penalty": 0, "repetition_penalty": 1}
        for name, value in neutral.items():
            if getattr(self, name) not in (None, value):
                raise ValueError(f"{name} is {getattr(self, name)}; this server has no penalties, leave it out")
        if self.logit_bias:
            raise ValueError("logit_bias is not supported; leave it out")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options need stream=true")
        if "" in self.stops:
            raise ValueError("stop holds an empty text; leave it out")
        if len(self.stops) > MOST_STOPS or len(self.stop_token_ids or ()) > MOST_STOPS:
            raise ValueError(f"stop holds more than {MOST_STOPS} texts, or stop_token_ids more ids; each is looked for")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop texts."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self, max_tokens: int, num_top: int, index: int, *, raw: bool) -> Sampling:
        """The settings of one of the choices; each has noise of its own.

        Args:
            max_tokens: most tokens to draw.
            num_top: likeliest tokens to report at each position.
            index: of the choice among those of its prompt.
            raw: whether log-probabilities are asked for, of the model's own distribution.
        """
        return Sampling(
            max_tokens=max_tokens,
            temperature=_given(self.temperature, 1.0),
            top_p=_given(self.top_p, 1.0),
            top_k=max(0, _given(self.top_k, 0)),  # vLLM's -1 keeps all, too
            min_p=_given(self.min_p, 0.0),
            stop=self.stops,
            seed=None if self.seed is None else (self.seed + index) % 2**63,
            num_top_logprobs=num_top,
            raw_logprobs=raw,
        )


class CompletionBody(SamplingBody):
    """``POST /v1/completions``."""

    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: Annotated[int, Field(ge=0)] | None = 16
    echo: bool | None = False
    logprobs: Annotated[int, Field(ge=0, le=MOST_TOP_LOGPROBS)] | None = None
    add_special_tokens: bool = True
    best_of: Count | None = None
    suffix: str | None = None

    @model_validator(mode="after")
    def _only_completions(self) -> "CompletionBody":
        if self.best_of not in (None, self.n or 1):
            raise ValueError(f"best_of is {self.best_of}; this server returns all it samples, use n")
        if self.suffix:
            raise ValueError("suffix is not supported; leave it out")
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens is 0, and without echo nothing would come; it must be at least 1")
        if self.max_tokens == 0 and self.stream:
            raise ValueError("max_tokens is 0: there is nothing to stream")
        return self

    def prompts(self) -> list[str | list[int]]:
        """The prompts, one or several. Raises BodyError where there is none, or an empty one."""
        given = self.prompt
        if isinstance(given, str):
            found: list[str | list[int]] = [given]
        elif given and isinstance(given[0], int):
            found = [[int(one) for one in given if isinstance(one, int)]]
        else:
            found = [one for one in given if isinstance(one, str | list)]
        if not found or not all(found):
            raise BodyError(400, "prompt is empty; give at least one token", "prompt")
        if len(found) * (self.n or 1) > MOST_CHOICES:
            told = f"{len(found)} prompts times n = {self.n or 1}"
            raise BodyError(400, f"{told} are more than {MOST_CHOICES} completions; send several requests", "prompt")
        return found


class ToolChoiceFunction(BaseModel):
    """The function that must be called."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str


class NamedToolChoice(BaseModel):
    """One function, by name."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["function"]
    function: ToolChoiceFunction


class ResponseFormat(BaseModel):
    """Only text can be promised."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["text"]


class ChatBody(SamplingBody):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[Any], Field(min_length=1)]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_TOP_LOGPROBS)] | None = None
    tools: list[Any] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: Any = None
    chat_template_kwargs: dict[str, Any] | None = None
    """Options of the chat template, such as {"enable_thinking": false}; as vLLM has it."""

    @model_validator(mode="after")
    def _only_chat(self) -> "ChatBody":
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs need logprobs=true")
        if self.reasoning_effort is not None:
            raise ValueError("reasoning_effort is not supported; leave it out")
        if self.tool_choice not in (None, "none", "auto") and not self.tools:
            raise ValueError("tool_choice wants a call and there are no tools; give some")
        return self

    @property
    def most_tokens(self) -> int | None:
        """Tokens that may be sampled; None: as many as there is room for."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens


def _given(value: Value | None, default: Value) -> Value:
    return default if value is None else value
