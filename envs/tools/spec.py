"""``@tool``: a method whose signature and docstring are the tool's specification."""

import inspect
import json
import re
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal, TypeVar, overload

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError

from ...model.chat.encoding import has_halves
from ...model.chat.messages import ToolSpec

F = TypeVar("F", bound=Callable[..., Any])


class ToolError(Exception):
    """Raised by a tool to answer the policy with an error it can mend; ends nothing."""


@overload
def tool(method: F) -> F: ...
@overload
def tool(*, on_error: Literal["fail", "tell"]) -> Callable[[F], F]: ...
def tool(method: F | None = None, *, on_error: Literal["fail", "tell"] | None = None) -> F | Callable[[F], F]:
    """Mark a method of an environment as a tool the policy may call. It may be ``async``.

    Every parameter needs a type; the docstring's first paragraph is the tool's description, and lines
    ``name: text`` under ``Args:`` describe its parameters. A tool returns the text that answers the call, or
    ``Submission(...)``, which ends the episode.

    Args:
        on_error: what an exception other than ToolError does, see ``ToolEnv.on_error``; None: as the environment says.
    Raises:
        TypeError: a parameter has no type or cannot be given by name, or the method has no docstring.
        ValueError: on_error is neither "fail" nor "tell".
    """
    if on_error not in (None, "fail", "tell"):
        raise ValueError(f"on_error is {on_error!r}; it is 'fail' or 'tell'")

    def mark(method: F) -> F:
        _check_signature(method)
        method.__verigym_tool__ = True  # type: ignore[attr-defined]
        method.__verigym_on_error__ = on_error  # type: ignore[attr-defined]
        return method

    return mark if method is None else mark(method)


def _check_signature(method: Callable[..., Any]) -> None:
    for parameter in list(inspect.signature(method).parameters.values())[1:]:
        if parameter.annotation is inspect.Parameter.empty:
            raise TypeError(f"tool {method.__name__!r}: parameter {parameter.name!r} has no type; the policy needs one")
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"tool {method.__name__!r}: parameter {str(parameter)!r} cannot be given by its name")
    if not inspect.getdoc(method):
        raise TypeError(f"tool {method.__name__!r} has no docstring; the policy needs a description")


class BoundTool:
    """A tool method of one environment, with its specification and its argument check."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self.method = method
        self.on_error: Literal["fail", "tell"] | None = getattr(method, "__verigym_on_error__", None)
        self.spec, self._arguments = _specification(getattr(method, "__func__", method))

    def check(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments converted to the types of the signature.

        Raises:
            ToolError: a missing, unknown or ill-typed argument (the message names it), or text that UTF-8 cannot hold.
        """
        if has_halves(json.dumps(arguments, ensure_ascii=False, default=str)):
            raise ToolError(f"{self.spec.name}: the arguments hold half of a surrogate pair, which is no character")
        try:
            checked = self._arguments.model_validate(dict(arguments))
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, problem['loc'])) or 'arguments'}: {problem['msg']}" for problem in error.errors()
            )
            raise ToolError(f"{self.spec.name}: {problems}") from None
        return {info.alias or field: getattr(checked, field) for field, info in type(checked).model_fields.items()}


def tools_of(owner: object) -> dict[str, BoundTool]:
    """The tools an object's class marks with ``@tool``, in order of definition (base classes first). A subclass
    changes a tool by defining it again, and takes it away by setting it to None."""
    names = [
        name
        for cls in reversed(type(owner).__mro__)
        for name, member in vars(cls).items()
        if getattr(member, "__verigym_tool__", False)
    ]
    members = {name: getattr(owner, name) for name in names}
    return {name: BoundTool(member) for name, member in members.items() if member is not None}


@cache
def _specification(function: Callable[..., Any]) -> tuple[ToolSpec, type[BaseModel]]:
    """(specification, model of the arguments) of a method: read once, however many environments there are."""
    _check_signature(function)
    hints = typing.get_type_hints(function)
    description, described = _read_docstring(inspect.getdoc(function) or "")
    fields: dict[str, Any] = {}
    for number, parameter in enumerate(list(inspect.signature(function).parameters.values())[1:]):
        name = parameter.name
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        # Fields have names of their own: pydantic refuses some that a parameter may have, such as "json" or "_x".
        fields[f"argument_{number}"] = (hints[name], Field(default, alias=name, description=described.get(name)))
    try:
        model = create_model(f"{function.__name__}_arguments", __config__=ConfigDict(extra="forbid"), **fields)
        schema = model.model_json_schema()
    except (PydanticSchemaGenerationError, PydanticInvalidForJsonSchema) as error:
        problem = str(error).splitlines()[0]
        raise TypeError(f"tool {function.__name__!r}: a parameter's type has no JSON schema ({problem})") from None
    parameters = {
        "type": "object",
        "properties": {
            name: {key: value for key, value in entry.items() if key != "title"}
            for name, entry in schema.get("properties", {}).items()
        },
        "required": schema.get("required", []),
    }
    if "$defs" in schema:
        parameters["$defs"] = schema["$defs"]
    return ToolSpec(name=function.__name__, description=description, parameters=parameters), model


def _read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """(description, {parameter: description}); what is indented further than a parameter belongs to its description."""
    head, _, tail = text.partition("Args:\n")
    section = inspect.cleandoc(re.split(r"\n(?=\S)", tail, maxsplit=1)[0])
    described = re.findall(r"^(\w+):\s*(.*(?:\n[ \t]+.*)*)", section, re.M)
    return " ".join(head.split("\n\n")[0].split()), {name: " ".join(about.split()) for name, about in described}
