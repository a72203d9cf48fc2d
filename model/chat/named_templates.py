"""Chat templates for models that come without one: a Jinja file, or one of those named here."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from ...errors import ConfigError

CHATML = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""
PLAIN = """\
{%- if bos_token -%}{{ bos_token }}{%- endif -%}
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{{ message.content }}{{ eos_token }}

{% elif message.role == 'system' -%}
{{ message.content }}

{% else -%}
Question: {{ message.content }}
Answer:
{% endif -%}
{%- endfor -%}
"""
NAMED: Mapping[str, str] = {"chatml": CHATML, "plain": PLAIN}
"""chatml, for a vocabulary that has its tokens; plain, questions and answers for a model that knows documents alone:
an answer ends with the end-of-text token."""
HOW = f"--chat-template (in a recipe model.chat_template) takes {', '.join(NAMED)} or a Jinja file"


def set_template(tokenizer: Any, spec: str) -> None:
    """Give a tokenizer of transformers the template of this name, or of this file.

    Raises:
        ConfigError: no such template, a file that is none, or the vocabulary lacks what the named one is written with.
    """
    if spec not in NAMED:
        tokenizer.chat_template = _read(Path(spec))
        return
    special = tokenizer.all_special_tokens
    if spec == "chatml" and not {"<|im_start|>", "<|im_end|>"} <= set(special):
        raise ConfigError(
            "the tokenizer has no special tokens <|im_start|> and <|im_end|> to write chatml with; choose plain"
        )
    if spec == "plain" and tokenizer.eos_token is None:
        raise ConfigError("the tokenizer names no eos_token to end an answer with; give a Jinja file of your own")
    tokenizer.chat_template = NAMED[spec]


def template_identity(spec: str | None) -> dict[str, str]:
    """What of a template that was asked for makes two runs the same; nothing without one. Raises ConfigError."""
    if spec is None:
        return {}
    text = NAMED[spec] if spec in NAMED else _read(Path(spec))
    return {"chat_template": f"{spec if spec in NAMED else Path(spec).name} {sha256(text.encode()).hexdigest()[:16]}"}


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"there is no chat template {str(path)!r} ({error}); {HOW}") from None
    if "{{" not in text:
        raise ConfigError(f"{path} is no chat template: it writes no message ({{{{ … }}}}); {HOW}")
    return text
