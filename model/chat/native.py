"""Calls in the formats that families of models were taught, beside JSON between <tool_call> tags.

Which of them a checkpoint speaks is told by its chat template: it is what reads the template's own writing of a call.
"""

import ast
import json
import re
from collections.abc import Sequence
from typing import Any

from .messages import ToolCall, ToolSpec
from .openai import CallError, JsonParser, read_call

_BROKEN = "the call is not in the form of {name}: {text!r}"


class PythonTagParser(JsonParser):
    """Llama 3: JSON with "parameters", by itself or after ``<|python_tag|>``; several are parted by semicolons."""

    TAG = "<|python_tag|>"
    call_openers = (TAG, "{", "[", "```")

    def opening(self, name: str | None) -> str:
        return '{"name": "' if name is None else f'{{"name": "{name}", "parameters": '

    def find_calls(self, text: str, tools: Sequence[ToolSpec]) -> tuple[str, tuple[ToolCall, ...]]:
        before, tagged, after = text.partition(self.TAG)
        if not tagged:
            return super().find_calls(text, tools)
        decoder, calls, rest = json.JSONDecoder(), [], after.strip()
        while rest:
            try:
                value, end = decoder.raw_decode(rest)
            except (ValueError, RecursionError):
                raise CallError(f"the call is not valid JSON: {rest[:120]!r}") from None
            calls += [read_call(row) for row in (value if isinstance(value, list) else [value])]
            rest = rest[end:].lstrip("; \n\t")
        if not calls:
            raise CallError(f"there is no call after {self.TAG}")
        return before.strip(), tuple(calls)

    def write_calls(self, calls: Sequence[ToolCall]) -> str:
        rows = [{"name": call.name, "parameters": dict(call.arguments)} for call in calls]
        written = [json.dumps(row, ensure_ascii=False) for row in rows]
        return written[0] if len(written) == 1 else self.TAG + "; ".join(written)


class MistralParser(JsonParser):
    """``[TOOL_CALLS]`` and a JSON list, or, later, ``[TOOL_CALLS]name[ARGS]{...}`` for each call."""

    TAG, ARGUMENTS = "[TOOL_CALLS]", "[ARGS]"
    _NAME = re.compile(r"\s*([\w.-]+)\s*(?:\[CALL_ID\]\s*(\w+)\s*)?(?:\[ARGS\]\s*)?(?=\{)")
    call_openers = (TAG,)

    def opening(self, name: str | None) -> str:
        begun = f'{self.TAG}[{{"name": "'
        return begun if name is None else f'{begun}{name}", "arguments": '

    def find_calls(self, text: str, tools: Sequence[ToolSpec]) -> tuple[str, tuple[ToolCall, ...]]:
        before, *blocks = text.split(self.TAG)
        calls: list[ToolCall] = []
        for block in blocks:
            named = self._NAME.match(block)
            body = block[named.end() :] if named else block
            try:
                value, end = json.JSONDecoder().raw_decode(body.lstrip())
            except (ValueError, RecursionError):
                raise CallError(f"the call is not valid JSON: {block.strip()[:120]!r}") from None
            if body.lstrip()[end:].strip():
                raise CallError(f"there is text after a call: {body.lstrip()[end:].strip()[:120]!r}")
            if named:
                rows = [{"name": named[1], "id": named[2], "arguments": value}]
            else:
                rows = value if isinstance(value, list) else [value]
            calls += [read_call(row) for row in rows]
        if blocks and not calls:
            raise CallError(f"there is no call after {self.TAG}")
        return before.strip() if calls else text, tuple(calls)

    def write_calls(self, calls: Sequence[ToolCall]) -> str:
        rows = [{"name": call.name, "arguments": dict(call.arguments)} for call in calls]
        return self.TAG + json.dumps(rows, ensure_ascii=False)


class XmlParser(JsonParser):
    """Qwen 3 Coder and 3.5: ``<tool_call><function=name><parameter=key>value</parameter></function></tool_call>``."""

    _CALL = re.compile(r"<function=([^>\s]+)>(.*?)</function>", re.S)
    _ARGUMENT = re.compile(r"<parameter=([^>\s]+)>\n?(.*?)\n?</parameter>", re.S)
    call_openers = ("<tool_call>", "</tool_call>", "<function=")

    def opening(self, name: str | None) -> str:
        return "<tool_call>\n<function=" + ("" if name is None else f"{name}>\n")

    def find_calls(self, text: str, tools: Sequence[ToolSpec]) -> tuple[str, tuple[ToolCall, ...]]:
        calls = tuple(
            ToolCall(name=name, arguments=_typed(dict(self._ARGUMENT.findall(body)), name, tools))
            for name, body in self._CALL.findall(text)
        )
        outside = re.sub(r"</?tool_call>", "", self._CALL.sub("", text))
        if "<function=" in outside or ("<tool_call>" in text and not calls):
            raise CallError(_BROKEN.format(name="<function=name>", text=outside.strip()[:120]))
        return (outside.strip(), calls) if calls else (text, ())

    def write_calls(self, calls: Sequence[ToolCall]) -> str:
        return "\n".join(
            f"<tool_call>\n<function={call.name}>\n"
            + "".join(f"<parameter={key}>\n{_text(value)}\n</parameter>\n" for key, value in call.arguments.items())
            + "</function>\n</tool_call>"
            for call in calls
        )


class GlmParser(JsonParser):
    """GLM 4.5: ``<tool_call>name``, then ``<arg_key>`` and ``<arg_value>`` of each argument."""

    _CALL = re.compile(r"<tool_call>\s*([\w.-]+)\s*(.*?)</tool_call>", re.S)
    _ARGUMENT = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.S)
    call_openers = ("<tool_call>", "</tool_call>")

    def opening(self, name: str | None) -> str:
        return "<tool_call>" + ("" if name is None else f"{name}\n")

    def find_calls(self, text: str, tools: Sequence[ToolSpec]) -> tuple[str, tuple[ToolCall, ...]]:
        calls = tuple(
            ToolCall(name=name, arguments=_typed(dict(self._ARGUMENT.findall(body)), name, tools))
            for name, body in self._CALL.findall(text)
        )
        outside = self._CALL.sub("", text)
        if "<tool_call>" in outside or "</tool_call>" in outside:
            raise CallError(_BROKEN.format(name="<tool_call>name", text=outside.strip()[:120]))
        return (outside.strip(), calls) if calls else (text, ())

    def write_calls(self, calls: Sequence[ToolCall]) -> str:
        return "\n".join(
            f"<tool_call>{call.name}\n"
            + "".join(
                f"<arg_key>{key}</arg_key>\n<arg_value>{_text(value)}</arg_value>\n"
                for key, value in call.arguments.items()
            )
            + "</tool_call>"
            for call in calls
        )


class DeepSeekParser(JsonParser):
    """DeepSeek V3 and R1, and V3.1, which leaves out the kind and the fence."""

    BEGIN, END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
    _CALL = re.compile(r"<｜tool▁call▁begin｜>(.*?)<｜tool▁sep｜>(.*?)<｜tool▁call▁end｜>", re.S)
    call_openers = (BEGIN, "<｜tool▁call▁begin｜>")

    def opening(self, name: str | None) -> str:
        begun = f"{self.BEGIN}<｜tool▁call▁begin｜>function<｜tool▁sep｜>"
        return begun if name is None else f"{begun}{name}\n```json\n"

    def find_calls(self, text: str, tools: Sequence[ToolSpec]) -> tuple[str, tuple[ToolCall, ...]]:
        calls = []
        for kind, body in self._CALL.findall(text):
            if kind.strip() == "function":
                name, _, arguments = body.strip().partition("\n")
                arguments = re.sub(r"^```(?:json)?\s*|\s*```$", "", arguments.strip())
            else:
                name, arguments = kind, body
            calls.append(read_call({"name": name.strip(), "arguments": arguments}))
        outside = self._CALL.sub("", text).replace(self.BEGIN, "").replace(self.END, "")
        if "<｜tool▁call" in outside or (self.BEGIN in text and not calls):
            raise CallError(_BROKEN.format(name=self.BEGIN, text=outside.strip()[:120]))
        return (outside.strip(), tuple(calls)) if calls else (text, ())

    def write_calls(self, calls: Sequence[ToolCall]) -> str:
        written = "\n".join(
            f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{call.name}\n```json\n"
            f"{json.dumps(dict(call.arguments), ensure_ascii=False)}\n```<｜tool▁call▁end｜>"
            for call in calls
        )
        return f"{self.BEGIN}{written}{self.END}"


class PythonicParser(JsonParser):
    """Llama 3.2 and 4: a list of Python calls with plain values, ``[f(x=1), g()]``."""

    call_openers = ("[", "<|python_start|>")
    _ENDS = re.compile(r"<\|python_(?:start|end)\|>")

    def opening(self, name: str | None) -> str:
        return "[" if name is None else f"[{name}("

    def find_calls(self, text: str, tools: Sequence[ToolSpec]) -> tuple[str, tuple[ToolCall, ...]]:
        body = self._ENDS.sub("", text).strip()
        if not body.startswith("["):
            return text, ()
        try:
            tree = ast.parse(body, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            tree = None
        if not isinstance(tree, ast.List) or not all(isinstance(one, ast.Call) for one in tree.elts) or not tree.elts:
            if re.match(r"\[\s*[\w.]+\(", body):
                raise CallError(_BROKEN.format(name="[name(key=value)]", text=body[:120]))
            return text, ()
        return "", tuple(_python_call(one) for one in tree.elts)

    def write_calls(self, calls: Sequence[ToolCall]) -> str:
        written = (f"{c.name}({', '.join(f'{k}={v!r}' for k, v in c.arguments.items())})" for c in calls)
        return f"[{', '.join(written)}]"


class HarmonyParser(JsonParser):
    """gpt-oss: a turn is messages on channels; "analysis" is thinking, "final" the answer, one to a function a call."""

    _CALL = re.compile(
        r"(?:<\|start\|>assistant)?(?:<\|channel\|>\w+)? ?to=functions\.([\w.-]+)(?:<\|channel\|>\w+)?"
        r"[^<]*(?:<\|constrain\|>\w+)?<\|message\|>(.*?)(?=<\||$)",
        re.S,
    )
    call_openers = ("<|channel|>commentary", " to=functions.")

    def opening(self, name: str | None) -> str:
        return "<|channel|>commentary to=functions." + ("" if name is None else f"{name} <|constrain|>json<|message|>")

    def split(self, text: str) -> tuple[str | None, str | None]:
        if "<|channel|>analysis<|message|>" not in text:
            return None, text
        thinking, ended, answer = text.partition("<|channel|>analysis<|message|>")[2].partition("<|end|>")
        return thinking, answer if ended else None

    def find_calls(self, text: str, tools: Sequence[ToolSpec]) -> tuple[str, tuple[ToolCall, ...]]:
        calls = tuple(read_call({"name": name, "arguments": body}) for name, body in self._CALL.findall(text))
        if not calls and "to=functions." in text:
            raise CallError(_BROKEN.format(name="to=functions.name", text=text.strip()[:120]))
        rest = self._CALL.sub("", text)
        final = rest.rpartition("<|channel|>final<|message|>")
        content = final[2] if final[1] else re.sub(r"<\|[^|]*\|>(?:assistant|commentary|final)?", "", rest)
        return re.sub(r"<\|(?:end|return|call)\|>$", "", content.strip()), calls

    def write_calls(self, calls: Sequence[ToolCall]) -> str:
        return "<|start|>assistant".join(
            f"<|channel|>commentary to=functions.{call.name} <|constrain|>json<|message|>"
            f"{json.dumps(dict(call.arguments), ensure_ascii=False)}<|call|>"
            for call in calls
        )


def _typed(texts: dict[str, str], name: str, tools: Sequence[ToolSpec]) -> dict[str, Any]:
    """Arguments that were written as text, as what the tool's schema says they are."""
    schema = next((tool.parameters.get("properties", {}) for tool in tools if tool.name == name), {})
    return {key.strip(): _value(text, schema.get(key.strip(), {})) for key, text in texts.items()}


def _value(text: str, schema: Any) -> Any:
    kind = schema.get("type") if isinstance(schema, dict) else None
    if kind == "string" or (isinstance(kind, list) and "string" in kind):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _python_call(node: ast.expr) -> ToolCall:
    assert isinstance(node, ast.Call)
    name = ast.unparse(node.func)
    if node.args or any(keyword.arg is None for keyword in node.keywords):
        raise CallError(f"the arguments of {name} need their names: {name}(key=value)")
    try:
        values = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
    except (ValueError, TypeError, RecursionError, MemoryError):
        raise CallError(f"the arguments of {name} must be plain values") from None
    return ToolCall(name=name, arguments=values)


PARSERS: tuple[JsonParser, ...] = (
    JsonParser(),
    PythonTagParser(),
    MistralParser(),
    XmlParser(),
    GlmParser(),
    DeepSeekParser(),
    PythonicParser(),
    HarmonyParser(),
)
"""In the order in which they are tried on a template's own writing."""
