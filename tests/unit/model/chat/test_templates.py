"""Chat templates as families of models have them, each with its own form of calls: tools are shown, calls are read as
the template writes them, prompts are appended to or a segment opens, and ids are those of ``apply_chat_template``."""

import json

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from verigym.errors import ChatFormatError
from verigym.model.chat.actions import decode_action
from verigym.model.chat.huggingface import HuggingFaceRenderer
from verigym.model.chat.incremental import IncrementalText
from verigym.model.chat.messages import Message, ToolCall, ToolSpec
from verigym.model.chat.native import PARSERS
from verigym.model.chat.text import TokenNames
from verigym.model.format import decode_as_continuation

EDIT = ToolSpec(
    name="edit",
    description="Changes a file.",
    parameters={
        "type": "object",
        "properties": {"path": {"type": "string"}, "line": {"type": "integer"}, "all": {"type": "boolean"}},
        "required": ["path"],
    },
)
CALL = ToolCall(name="edit", arguments={"path": 'a "b".py', "line": 3, "all": True})

SPECIAL = [
    "<|im_start|>", "<|im_end|>", "<s>", "</s>", "<|eot|>", "<|eom|>", "<|head|>", "<|/head|>", "[INST]", "[/INST]",
    "<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|call|>", "<|return|>", "<|constrain|>",
]  # fmt: skip
HEADER = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


def chatml(call: str, *, tools: str = "{{ tools | tojson }}") -> str:
    """ChatML whose calls are written so."""
    return (
        "{% if tools %}<|im_start|>system\n" + tools + "<|im_end|>\n{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}"
        + call
        + "{% endfor %}<|im_end|>\n{% endfor %}"
        + HEADER
    )


# One call a message, JSON with "parameters"; turns end with a token of their own where a call waits for its answer.
LLAMA = (
    "{% if tools %}<|head|>system<|/head|>\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}<|eot|>{% endif %}"
    "{% for m in messages %}{% if m.tool_calls %}{% if m.tool_calls | length != 1 %}"
    "{{ raise_exception('one call at a time') }}{% endif %}<|head|>assistant<|/head|>\n"
    '{"name": "{{ m.tool_calls[0].function.name }}", "parameters": '
    "{{ m.tool_calls[0].function.arguments | tojson }}}<|eot|>"
    "{% elif m.role == 'tool' %}<|head|>ipython<|/head|>\n{{ m.content | tojson }}<|eot|>"
    "{% else %}<|head|>{{ m.role }}<|/head|>\n{{ m.content | trim }}<|eot|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|head|>assistant<|/head|>\n{% endif %}"
)
# Tools stand before the last message of the user; ids of calls have nine characters.
MISTRAL = (
    "<s>{% for m in messages %}{% if m.role == 'user' %}{% if tools and loop.index0 == (messages | length) - 1"
    " - (messages | map(attribute='role') | list | reverse | list).index('user') %}"
    "[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}[INST]{{ m.content }}[/INST]"
    "{% elif m.tool_calls %}[TOOL_CALLS][{% for c in m.tool_calls %}{% if c.id | length != 9 %}"
    '{{ raise_exception(\'ids have nine characters\') }}{% endif %}{"name": "{{ c.function.name }}", "arguments": '
    '{{ c.function.arguments | tojson }}, "id": "{{ c.id }}"}{% if not loop.last %}, {% endif %}{% endfor %}]</s>'
    "{% elif m.role == 'tool' %}[TOOL_RESULTS]{{ m.content }}[/TOOL_RESULTS]"
    "{% else %}{{ m.content }}</s>{% endif %}{% endfor %}"
)
# Arguments are joined to the text as they are: an object is an error.
DEEPSEEK = chatml(
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>{{ c.function.name + '\n```json\n' + "
    "c.function.arguments + '\n```' }}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
)
XML = chatml(
    "<tool_call>\n<function={{ c.function.name }}>\n{% for k, v in c.function.arguments.items() %}<parameter={{ k }}>\n"
    "{{ v if v is string else v | tojson }}\n</parameter>\n{% endfor %}</function>\n</tool_call>"
)
GLM = chatml(
    "<tool_call>{{ c.function.name }}\n{% for k, v in c.function.arguments.items() %}<arg_key>{{ k }}</arg_key>\n"
    "<arg_value>{{ v if v is string else v | tojson }}</arg_value>\n{% endfor %}</tool_call>"
)
PYTHONIC = chatml(
    "{% if loop.first %}[{% else %}, {% endif %}{{ c.function.name }}({% for k, v in c.function.arguments.items() %}"
    "{{ k }}={{ v.__repr__() if v is not string else '\"' + v + '\"' }}{% if not loop.last %}, {% endif %}{% endfor %})"
    "{% if loop.last %}]{% endif %}"
)
HERMES = chatml(
    '<tool_call>\n{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>'
)
# A turn is messages on channels, of which only the last ends it.
HARMONY = (
    "{% if tools %}<|start|>developer<|message|>{{ tools | tojson }}<|end|>{% endif %}"
    "{% for m in messages %}{% if m.tool_calls %}<|start|>assistant<|channel|>commentary to=functions."
    "{{ m.tool_calls[0].function.name }} <|constrain|>json<|message|>{{ m.tool_calls[0].function.arguments | tojson }}"
    "<|call|>{% elif m.role == 'tool' %}<|start|>functions.tool to=assistant<|channel|>commentary<|message|>"
    "{{ m.content }}<|end|>{% elif m.role == 'assistant' %}{% if m.reasoning_content and loop.last %}<|start|>assistant"
    "<|channel|>analysis<|message|>{{ m.reasoning_content }}<|end|>{% endif %}<|start|>assistant<|channel|>final"
    "<|message|>{{ m.content }}{{ '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' }}"
    "{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
KNOWS_NO_TOOLS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" + HEADER
)  # fmt: skip
DROPS_CALLS = chatml("")
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" + HEADER
)

# Name, template, class of the parser, whether a message may hold two calls, whether a user's message is appended.
NATIVE = [
    ("hermes", HERMES, "JsonParser", True, True),
    ("llama 3", LLAMA, "JsonParser", False, True),
    ("mistral", MISTRAL, "MistralParser", True, False),
    ("deepseek", DEEPSEEK, "DeepSeekParser", True, True),
    ("qwen 3 coder", XML, "XmlParser", True, True),
    ("glm", GLM, "GlmParser", True, True),
    ("pythonic", PYTHONIC, "PythonicParser", True, True),
    ("harmony", HARMONY, "HarmonyParser", False, False),
]


def make(template: str, *, prepends: bool = False, named: bool = True, eos: str | None = "<|im_end|>"):
    """Characters as tokens. ``prepends``: a blank is put before what begins a text, as SentencePiece has it."""
    characters = sorted({*map(chr, range(32, 127)), "\n", "▁", "é", "｜"})
    vocab = {c: i for i, c in enumerate(["<unk>", *characters, "▁h", "▁hello"])}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[("▁", "h")], unk_token="<unk>"))
    scheme = "first" if prepends else "never"
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    core.decoder = decoders.Metaspace(prepend_scheme=scheme, split=False)
    core.add_special_tokens([AddedToken(one, special=True, normalized=False) for one in SPECIAL])
    names = {"additional_special_tokens": SPECIAL} if named else {}
    fast = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=eos, **names)
    fast.chat_template = template
    return fast


@pytest.mark.parametrize(("name", "template", "parser", "parallel", "appends"), NATIVE, ids=[one[0] for one in NATIVE])
def test_tools_are_shown_and_calls_read_in_the_templates_own_form(
    name: str, template: str, parser: str, parallel: bool, appends: bool
) -> None:
    tokenizer = make(template, eos="</s>" if name == "mistral" else "<|im_end|>")
    renderer = HuggingFaceRenderer(tokenizer)
    assert renderer.tool_problem == ""
    assert type(renderer.parser).__name__ == parser
    assert renderer.append_only["user", False] is appends
    text = renderer.parser.format(Message(role="assistant", content="", calls=(CALL,)), [EDIT])
    message, action = renderer.parser.parse(text, [EDIT])
    assert (message.calls, decode_action(action).calls) == ((CALL,), (CALL,))
    # Two calls whose ids are long, and their answers: nothing is lost, whatever the template can take.
    calls = tuple(ToolCall(name="edit", arguments={"path": f"f{i}"}, id=f"chatcmpl-tool-{i}") for i in range(2))
    results = [Message(role="tool", content=f"done {i}", name="edit", call_id=f"chatcmpl-tool-{i}") for i in range(2)]
    asked = Message(role="user", content="hello")
    shown = tokenizer.decode(
        renderer.start([asked, Message(role="assistant", content="", calls=calls), *results], [EDIT]).token_ids
    )
    for seen in ("Changes a file.", "f0", "f1", "done 0", "done 1"):
        assert seen in shown
    assert shown.index("f0") < shown.index("f1" if parallel else "done 0") < shown.index("done 1")


@pytest.mark.parametrize(
    ("template", "told"),
    [
        pytest.param(KNOWS_NO_TOOLS, "it does not show the tools", id="plain"),
        pytest.param(DROPS_CALLS, "it does not show calls", id="drops calls"),
        pytest.param(chatml("CALL<{{ c.function.name }}|{{ c.function.arguments.given }}>"), "no parser here reads",
                     id="unknown form"),
    ],
)  # fmt: skip
def test_what_would_be_lost_in_silence_is_refused(template: str, told: str) -> None:
    renderer = HuggingFaceRenderer(make(template))
    asked = [Message(role="user", content="hello")]
    renderer.start(asked, [])
    with pytest.raises(ChatFormatError, match=f"{told}.*tools = 'text'"):
        renderer.start(asked, [EDIT])


@pytest.mark.parametrize("template", [KNOWS_NO_TOOLS, NO_SYSTEM], ids=["plain", "no system"])
def test_tools_as_text_serve_a_template_that_knows_none(template: str) -> None:
    tokenizer = make(template)
    renderer = HuggingFaceRenderer(tokenizer, tools="text")
    asked = [Message(role="system", content="Be brief."), Message(role="user", content="hello")]
    first = renderer.start(asked, [EDIT])
    said = renderer.encode_turn(renderer.parser.format(Message(role="assistant", content="", calls=(CALL,)), [EDIT]))
    message, _ = renderer.parser.parse(renderer.decode(said), [EDIT])
    assert message.calls == (CALL,)
    results = [Message(role="tool", content=f"done {i}", name="edit") for i in range(2)]
    more = renderer.extend(said, results)
    assert more is not None
    whole = renderer.start([*asked, Message(role="assistant", content="", calls=(CALL,)), *results], [EDIT])
    assert (*first.token_ids, *said, *more.token_ids) == whole.token_ids
    assert {role for role, i in zip(more.roles, more.token_ids)} == {"template", "tool"}
    text = tokenizer.decode(whole.token_ids)
    assert text.count("Be brief.") == text.count("Changes a file.") == text.count("done 0") == 1


def test_taught_tools_are_used_and_not_listed() -> None:
    tokenizer = make(KNOWS_NO_TOOLS)
    renderer = HuggingFaceRenderer(tokenizer, tools="taught")
    asked = [Message(role="user", content="hello")]
    first = renderer.start(asked, [EDIT])
    assert first == renderer.start(asked, [])
    said = renderer.encode_turn(renderer.parser.format(Message(role="assistant", content="", calls=(CALL,)), [EDIT]))
    message, _ = renderer.parser.parse(renderer.decode(said), [EDIT])
    assert message.calls == (CALL,)
    more = renderer.extend(said, [Message(role="tool", content="done", name="edit")])
    assert more is not None
    assert "done" in tokenizer.decode(more.token_ids)


@pytest.mark.parametrize("prepends", [False, True], ids=["as it is", "a blank before a text"])
@pytest.mark.parametrize(
    "template",
    [HERMES, LLAMA, "{% for m in messages %}{{ m.role }}:{{ m.content }}</s>{% endfor %}"
     "{% if add_generation_prompt %}assistant:{% endif %}"],
    ids=["chatml", "llama 3", "begins with text"],
)  # fmt: skip
def test_ids_are_those_of_apply_chat_template_over_several_turns(template: str, prepends: bool) -> None:
    tokenizer = make(template, prepends=prepends)
    renderer = HuggingFaceRenderer(tokenizer)
    said = ["hello world", "h", " hello", "\nhello\n"]
    messages = [Message(role="user", content="hello there")]
    ids = list(renderer.start(messages, []).token_ids)
    for index, text in enumerate(said[:2]):
        rows = [{"role": m.role, "content": m.content} for m in messages]
        assert ids == list(tokenizer.apply_chat_template(rows, add_generation_prompt=True, return_dict=False))
        turn = renderer.encode_turn(text)
        assert renderer.decode(turn) == text
        more = renderer.extend(turn, [Message(role="user", content=said[index + 2].strip())])
        messages += [Message(role="assistant", content=text), Message(role="user", content=said[index + 2].strip())]
        if more is None:
            ids = list(renderer.start(messages, []).token_ids)
        else:
            ids += [*turn, *more.token_ids]
    rows = [{"role": m.role, "content": m.content} for m in messages]
    assert ids == list(tokenizer.apply_chat_template(rows, add_generation_prompt=True, return_dict=False))


def test_a_message_that_spells_special_tokens_gets_no_blank_and_no_power() -> None:
    tokenizer = make(HERMES, prepends=True)
    renderer = HuggingFaceRenderer(tokenizer)
    spelled = renderer.start([Message(role="user", content="hello <|im_end|> h")], []).token_ids
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert list(spelled).count(end) == 1
    assert tokenizer.decode(spelled).count("user\nhello <|im_end|> h<|im_end|>") == 1


def test_a_token_is_special_where_only_its_entry_says_so() -> None:
    renderer = HuggingFaceRenderer(make(HERMES, named=False, eos=None))
    assert len(renderer.stop_token_ids) == 1


def test_what_the_settings_of_generation_name_ends_turns_too() -> None:
    tokenizer = make(LLAMA, eos="<|eot|>")
    eom = tokenizer.convert_tokens_to_ids("<|eom|>")
    renderer = HuggingFaceRenderer(tokenizer, eos_token_ids=(eom,))
    assert set(renderer.stop_token_ids) == {eom, tokenizer.eos_token_id}
    assert renderer.decode([*renderer.encode_turn("h")[:-1], eom]) == "h"


def test_what_ends_a_part_of_a_turn_does_not_end_it() -> None:
    tokenizer = make(HARMONY, eos="<|return|>")
    call, end, back = map(tokenizer.convert_tokens_to_ids, ("<|call|>", "<|end|>", "<|return|>"))
    renderer = HuggingFaceRenderer(tokenizer, eos_token_ids=(back, call))
    assert set(renderer.stop_token_ids) == {back, call}
    assert end not in renderer.stop_token_ids
    text = "<|channel|>analysis<|message|>let me see<|end|><|start|>assistant<|channel|>final<|message|>hello"
    message, action = renderer.parser.parse(text, [])
    assert (message.thinking, message.content, action) == ("let me see", "hello", "hello")


def test_options_reach_the_template() -> None:
    template = HERMES.replace("assistant\n{% endif %}", "assistant\n{% if quiet %}hush {% endif %}{% endif %}")
    tokenizer = make(template)
    asked = [Message(role="user", content="h")]
    renderer = HuggingFaceRenderer(tokenizer)
    loud, quiet = renderer.start(asked, []), renderer.with_options({"quiet": True}).start(asked, [])
    assert "hush" in tokenizer.decode(quiet.token_ids)
    assert "hush" not in tokenizer.decode(loud.token_ids)
    assert renderer.with_options({"quiet": True}) is renderer.with_options({"quiet": True})
    for number in range(40):
        renderer.with_options({"quiet": number})
    assert HuggingFaceRenderer(tokenizer, options={"quiet": True}).start(asked, []) == quiet


BROKEN = {
    "JsonParser": "<tool_call>{", "PythonTagParser": "<|python_tag|>{", "MistralParser": "[TOOL_CALLS][{",
    "XmlParser": "<tool_call><function=edit>", "GlmParser": "<tool_call>edit", "PythonicParser": "[edit(path='a'",
    "DeepSeekParser": "<｜tool▁calls▁begin｜>x", "HarmonyParser": "<|channel|>commentary to=functions.edit<|message|>{",
}  # fmt: skip


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: type(parser).__name__)
def test_every_parser_reads_what_it_writes_and_tells_what_it_cannot(parser) -> None:
    calls = (CALL, ToolCall(name="edit", arguments={"path": "é\nx", "line": -1, "all": False}))
    text = parser.format(Message(role="assistant", content="", calls=calls), [EDIT])
    assert parser.parse(text, [EDIT])[0].calls == calls
    assert parser.parse("hello, no call", [EDIT])[1] == "hello, no call"
    assert "format_error" in json.loads(parser.parse(BROKEN[type(parser).__name__], [EDIT])[1])
    assert any(text.startswith(one) for one in parser.call_openers)
    assert parser.opening(None).startswith(parser.call_openers)
    assert "nope" in parser.parse(text.replace("edit", "nope"), [EDIT])[1]


@pytest.mark.parametrize("prepends", [True, False])
def test_tokens_of_a_completion_keep_their_blanks(prepends: bool) -> None:
    """SentencePiece's decoders drop the blank before what they think is a text's first word."""
    tokenizer = make(HERMES, prepends=prepends)
    decode = decode_as_continuation(tokenizer)
    vocab = tokenizer.get_vocab()
    assert [decode([vocab[token]]) for token in ("h", "▁h", "▁hello", "▁", "é")] == ["h", " h", " hello", " ", "é"]
    names = TokenNames(decode)
    assert names(vocab["▁h"]) != names(vocab["h"])
    assert names.utf8(vocab["▁"]) == [32]
    answer = tokenizer.encode("a hello", add_special_tokens=False)[-6:]
    assert tokenizer.decode(answer) in decode(answer)
    text = IncrementalText(decode)
    assert "".join(text.push((one,)) for one in [vocab["▁hello"], vocab["▁h"], vocab["▁"]]) == " hello h "
