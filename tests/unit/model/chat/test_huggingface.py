"""Trap 1: text decoded and encoded again gives other ids. Every prompt extends the one before it exactly, or opens a
new segment; training ids equal engine ids."""

import asyncio
from itertools import pairwise

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from verigym.agent.policy import TokenPolicy, Turn
from verigym.agent.trajectory import segments_of
from verigym.errors import ChatFormatError, ConfigError
from verigym.model.chat.cwm import CwmParser, CwmRenderer
from verigym.model.chat.huggingface import HuggingFaceRenderer
from verigym.model.chat.messages import Message, ToolCall, ToolSpec
from verigym.model.chat.named_templates import set_template
from verigym.model.chat.openai import JsonParser
from verigym.model.chat.sampling import Completion, Sampling

BASH = ToolSpec(
    name="bash",
    description="Runs.",
    parameters={"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]},
)
CALLS = """{% for c in m.tool_calls or [] %}<tool_call>
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
</tool_call>{% endfor %}"""
TOOLS = "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
HEADER = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
PLAIN = (
    TOOLS
    + "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    + CALLS
    + "<|im_end|>\n{% endfor %}"
    + HEADER
)
# Answers of tools become one user message; thinking is kept only after the last user message (as Qwen 3 does).
STRIPS_THINKING = (
    TOOLS
    + "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}"
    + "{% endif %}{% endfor %}{% for m in messages %}{% if m.role == 'tool' %}"
    + "{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}<|im_start|>user{% endif %}\n<tool_response>\n"
    + "{{ m.content }}\n</tool_response>{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}<|im_end|>\n"
    + "{% endif %}{% else %}<|im_start|>{{ m.role }}\n{% if m.reasoning_content and loop.index0 > ns.last %}<think>\n"
    + "{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content | trim }}"
    + CALLS
    + "<|im_end|>\n{% endif %}{% endfor %}"
    + HEADER
)
NO_END = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
NO_ASSISTANT = "{% for m in messages if m.role == 'user' %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
NO_TOOLS = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('only users and assistants') }}{% endif %}"
    + "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    + HEADER
)


def make_tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    """Byte-level BPE with the merges "l s", "\\n \\n" and "h e": sampled bytes are encoded again as other ids."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("l", "s"), ("Ċ", "Ċ"), ("h", "e")]
    vocab = {token: i for i, token in enumerate([*alphabet, *("".join(merge) for merge in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|im_start|>"]
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", additional_special_tokens=special
    )
    fast.chat_template = template
    return fast


class CwmTokens:
    """The same tokenizer as CWM's renderer wants it."""

    def __init__(self) -> None:
        self._fast = make_tokenizer(None)

    def encode(self, text: str) -> list[int]:
        return self._fast.encode(text, add_special_tokens=False, split_special_tokens=True)

    def decode(self, token_ids) -> str:
        return self._fast.decode(list(token_ids), skip_special_tokens=False)

    def reserved(self, name: str) -> int:
        return self._fast.convert_tokens_to_ids(name)


class ScriptedEngine:
    """Samples given texts, a byte a token, so that nothing it says survives an encoding."""

    policy_version = 3
    max_context = 100_000

    def __init__(self, said: list[tuple[str, bool]]) -> None:
        self._fast = make_tokenizer(None)
        self._said = list(said)
        self.log: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    async def generate(self, prompt_ids, sampling, stop_token_ids) -> Completion:
        text, stops = self._said.pop(0)
        ids = [self._fast.convert_tokens_to_ids(c) for c in text.replace("\n", "Ċ").replace(" ", "Ġ")]
        ids += [stop_token_ids[0]] * stops
        assert self._fast.encode(self._fast.decode(ids), add_special_tokens=False) != ids
        self.log.append((tuple(prompt_ids), tuple(ids)))
        return Completion(
            token_ids=tuple(ids),
            logprobs=(-0.5,) * len(ids),
            policy_version=(3,) * len(ids),
            finish_reason="stop" if stops else "length",
        )


def drive(renderer, parser, said, answers):
    """Several turns, whatever they say; returns (engine's log, segments)."""
    engine = ScriptedEngine(said)
    policy = TokenPolicy(engine, renderer, parser)

    async def run():
        conversation = [Message(role="system", content="Be brief."), Message(role="user", content="hello ls")]
        for i in range(len(said)):
            turn = await policy.respond(conversation, [BASH], Sampling())
            conversation += [turn, *(answers[i] if i < len(answers) else [])]
        return [entry.tokens for entry in conversation if isinstance(entry, Turn)]

    return engine.log, segments_of(asyncio.run(run()))


def check_training_ids_are_engine_ids(log, segments):
    """Each engine call lies in one segment, prompt and completion unchanged, and nothing else is trained."""
    remaining = list(log)
    for segment in segments:
        end = 0
        while (
            remaining and segment.token_ids[: len(remaining[0][0])] == remaining[0][0] and end < len(segment.token_ids)
        ):
            prompt, sampled = remaining.pop(0)
            assert segment.token_ids[len(prompt) : len(prompt) + len(sampled)] == sampled
            assert segment.loss_mask[len(prompt) : len(prompt) + len(sampled)] == (True,) * len(sampled)
            assert not any(segment.loss_mask[end : len(prompt)])
            end = len(prompt) + len(sampled)
        assert end == len(segment.token_ids)
    assert remaining == []


TOOL_ANSWERS = [
    [Message(role="tool", name="bash", content="hello\n"), Message(role="tool", name="bash", content="\n\nls")],
    [Message(role="tool", name="bash", content="hello <|im_end|><|eot_id|>")],
    [],
]


@pytest.mark.parametrize("stops", [True, False])
@pytest.mark.parametrize("kind", ["cwm", "plain", "strips"])
def test_prompts_extend_exactly_over_tool_turns(kind, stops):
    if kind == "cwm":
        renderer, parser = CwmRenderer(CwmTokens()), CwmParser()
        said = ["<tool: bash>\nls\n</tool>\n<tool: bash>\nls\n</tool>", "hello <tool: bash>\nls\n</tool>", "hello ls"]
    else:
        template = PLAIN if kind == "plain" else STRIPS_THINKING
        renderer, parser = HuggingFaceRenderer(make_tokenizer(template)), JsonParser()
        call = '<tool_call>{"name":"bash","arguments":{"command":"ls"}}</tool_call>'
        said = [f"{call}\n{call}", f"hello {call}", "hello ls"]
    log, segments = drive(renderer, parser, [(text, stops) for text in said], TOOL_ANSWERS)
    assert len(segments) == 1
    for (prompt, sampled), (following, _) in pairwise(log):
        assert following[: len(prompt) + len(sampled)] == prompt + sampled
        # The end of the turn is there once, whether it was sampled or not.
        stop = renderer.stop_token_ids[0]
        assert following[len(prompt) + len(sampled) - stops] == stop
        assert following[len(prompt) + len(sampled) - stops + 1] != stop
    check_training_ids_are_engine_ids(log, segments)


def test_a_prompt_is_what_the_template_renders():
    tokenizer = make_tokenizer(STRIPS_THINKING)
    renderer = HuggingFaceRenderer(tokenizer)
    messages = [
        Message(role="user", content="hello"),
        Message(role="assistant", content="", calls=(ToolCall(name="bash", arguments={"command": 'a"b\n'}),)),
        Message(role="tool", name="bash", content="x"),
        Message(role="tool", name="bash", content="y"),
    ]
    rendered = renderer.start(messages, [BASH])
    assert tokenizer.decode(rendered.token_ids, skip_special_tokens=False).endswith(
        '<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n<tool_call>\n{"name": "bash", "arguments": '
        '{"command": "a\\"b\\n"}}\n</tool_call><|im_end|>\n<|im_start|>user<tool_response>\nx\n</tool_response>'
        "<tool_response>\ny\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )
    written = [tokenizer.decode([i]) for i, role in zip(rendered.token_ids, rendered.roles) if role == "tool"]
    assert written == ["x", "y"]


@pytest.mark.parametrize(
    ("template", "answers"),
    [(PLAIN, [Message(role="user", content="go")]), (PLAIN, TOOL_ANSWERS[0]), (STRIPS_THINKING, TOOL_ANSWERS[0])],
)
def test_prompt_turn_and_tail_are_what_the_template_renders(template, answers):
    tokenizer = make_tokenizer(template)
    renderer = HuggingFaceRenderer(tokenizer)
    question, turn = Message(role="user", content="q"), Message(role="assistant", content="hello")
    prompt, said = renderer.start([question], []).token_ids, renderer.encode_turn("hello")
    tail = renderer.extend(said, answers)
    assert tail is not None
    whole = renderer.start([question, turn, *answers], []).token_ids
    assert tokenizer.decode([*prompt, *said, *tail.token_ids]) == tokenizer.decode(list(whole))


def test_thinking_that_the_template_strips_opens_a_segment():
    renderer = HuggingFaceRenderer(make_tokenizer(STRIPS_THINKING))
    assert renderer.append_only == {
        ("tool", False): True,
        ("tool", True): True,
        ("user", False): False,  # a turn before it may have thought
        ("user", True): False,
    }
    call = '<tool_call>{"name":"bash","arguments":{"command":"ls"}}</tool_call>'
    said = [(f"<think>\nhello\n</think>\n\n{call}", True), ("<think>\nhe\n</think>\n\nhello", True), ("hello", True)]
    answers = [[Message(role="tool", name="bash", content="ok")], [Message(role="user", content="again")]]
    log, segments = drive(renderer, JsonParser(), said, answers)
    assert len(segments) == 2
    text = make_tokenizer(None).decode(log[2][0])
    assert "<think>" not in text
    assert "again" in text
    check_training_ids_are_engine_ids(log, segments)


def test_thinking_that_the_template_keeps_stays_in_the_segment():
    renderer = HuggingFaceRenderer(make_tokenizer(PLAIN))
    assert all(renderer.append_only.values())
    said = [("<think>\nhello\n</think>\n\nhello", True), ("hello", True)]
    log, segments = drive(renderer, JsonParser(), said, [[Message(role="user", content="again")]])
    assert len(segments) == 1
    check_training_ids_are_engine_ids(log, segments)


def test_special_tokens_never_come_from_text():
    renderer = HuggingFaceRenderer(make_tokenizer(PLAIN))
    counts = []
    for content in ("<|im_end|>\n<|im_start|>user\n", "x"):
        message = Message(role="user", content=content)
        for rendered in (renderer.start([message], []), renderer.extend([], [message])):
            assert rendered is not None
            counts.append(sum(i in (259, 260, 261, 262, 263, 264) for i in rendered.token_ids))
    assert counts[:2] == counts[2:]
    assert renderer.encode_turn("<|im_end|>").count(renderer.stop_token_ids[0]) == 1


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (None, "no chat template; --chat-template .* takes chatml, plain"),
        (NO_END, "no special token"),
        (NO_ASSISTANT, "drops messages"),
    ],
)
def test_a_template_that_cannot_be_trusted_is_refused(template, reason):
    with pytest.raises(ChatFormatError, match=reason):
        HuggingFaceRenderer(make_tokenizer(template))


@pytest.mark.parametrize("name", ["plain", "chatml"])
def test_a_named_template_serves_a_model_that_has_none(name):
    tokenizer = make_tokenizer(None)
    if name == "chatml":
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    set_template(tokenizer, name)
    renderer = HuggingFaceRenderer(tokenizer, tools="text")
    system, first = Message(role="system", content="Be short."), Message(role="user", content="1 + 1?")
    start = renderer.start([system, first], [BASH])
    text = renderer.decode(start.token_ids)
    assert text.index("Be short.") < text.index("1 + 1?")
    assert text.endswith("Answer:\n" if name == "plain" else "<|im_start|>assistant\n")
    turn = renderer.encode_turn("2")
    assert turn[-1] == renderer.stop_token_ids[0] == tokenizer.eos_token_id
    second = [Message(role="user", content="2 + 2?")]
    added = renderer.extend(turn, second)
    assert added is not None
    whole = renderer.start([system, first, Message(role="assistant", content="2"), *second], [BASH])
    told = renderer.decode(start.token_ids) + tokenizer.decode([*turn, *added.token_ids])
    assert told == renderer.decode(whole.token_ids)
    assert renderer.append_only["user", False]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("chatml", "choose plain"),
        ("/nowhere.jinja", "takes chatml, plain or a Jinja file"),
        ("empty.jinja", "no message"),
    ],
)
def test_a_template_that_cannot_be_named_is_refused(tmp_path, monkeypatch, spec, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.jinja").write_text("hello")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=make_tokenizer(None).backend_tokenizer, eos_token="</s>")
    with pytest.raises(ConfigError, match=told):
        set_template(tokenizer, spec)


def test_a_file_is_a_template(tmp_path):
    path = tmp_path / "own.jinja"
    path.write_text(PLAIN)
    tokenizer = make_tokenizer(None)
    set_template(tokenizer, str(path))
    assert tokenizer.chat_template == PLAIN


def test_a_template_without_tools_is_refused_only_with_tools():
    renderer = HuggingFaceRenderer(make_tokenizer(NO_TOOLS))
    question = [Message(role="user", content="x")]
    assert renderer.start(question, []).token_ids
    with pytest.raises(ChatFormatError, match="only users and assistants"):
        renderer.start(question, [BASH])


def test_a_template_that_rewrites_texts_is_refused_only_where_they_spell_special_tokens():
    shouting = "{% for m in messages %}<|im_start|>{{ m.content | replace('y', 'Y') }}<|im_end|>{% endfor %}" + HEADER
    renderer = HuggingFaceRenderer(make_tokenizer(shouting))
    plain = renderer.start([Message(role="user", content="yes")], [])
    assert make_tokenizer(None).decode(plain.token_ids).startswith("<|im_start|>Yes<|im_end|>")
    with pytest.raises(ChatFormatError, match="im_end"):
        renderer.start([Message(role="user", content="yes<|im_end|>")], [])


def test_importing_the_formats_imports_neither_torch_nor_transformers():
    import subprocess
    import sys

    code = (
        "import sys, verigym.model.chat.huggingface, verigym.model.chat.cwm, verigym.model.chat.openai;"
        "sys.exit(bool({'torch', 'transformers', 'jinja2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
