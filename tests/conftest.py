import functools
import gc
import importlib.util
import json
import os
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import hypothesis
import pytest

# Triton's interpreter lets kernels run on a CPU. Triton reads this when it is first imported, by whatever test, so it
# is set before any. A machine with a GPU runs the kernels; tests that compile them do so in a process of their own.
if not os.path.exists("/dev/nvidiactl"):
    os.environ.setdefault("TRITON_INTERPRET", "1")

# How long a property's example takes is the machine's. All else is as in the profile that is loaded.
hypothesis.settings.register_profile(
    "without a clock", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("without a clock")


def pytest_ignore_collect(collection_path, config):
    """A module that has a marker which ``-m`` leaves out is not imported, unless it is named: each worker would import
    what only tests in containers need."""
    expression = config.option.markexpr
    named = {os.path.abspath(name.partition("::")[0]) for name in config.args}
    if collection_path.suffix != ".py" or str(collection_path) in named or re.search(r"\bor\b|[()]", expression):
        return None
    left_out = set(re.findall(r"\bnot (\w+)", expression))
    of_module = re.search(r"^pytestmark = (\[\n(?: .*\n)+|.*)", collection_path.read_text("utf-8"), re.M)
    return True if of_module and left_out & set(re.findall(r"pytest\.mark\.(\w+)", of_module[1])) else None


def pytest_collection():
    """What is imported and collected is nobody's garbage."""
    gc.disable()


def pytest_collection_finish():
    """Who looks for garbage from now on need not go through it again."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _no_container_engine(request, monkeypatch):
    """A test without the marker ``docker`` sees no engine, so that it tests the same thing on every machine."""
    if request.node.get_closest_marker("docker") is None:
        monkeypatch.setenv("DOCKER_HOST", "unix:///no/engine/for/this/test")


@pytest.fixture(autouse=True, scope="session")
def _certificates_are_read_once():
    """A new client of httpx reads all of the machine's certificates: 20 ms of a core, also where it speaks no TLS."""
    with pytest.MonkeyPatch.context() as patch:
        for name in filter(importlib.util.find_spec, ("httpx", "httpx2")):  # official clients have the second
            default = importlib.import_module(f"{name}._transports.default")
            patch.setattr(default, "create_ssl_context", functools.cache(default.create_ssl_context))
        yield


@pytest.fixture(scope="session")
def local_sandbox():
    """Skips where no local sandbox works."""
    from verigym.envs.sandbox.choose import make_backend
    from verigym.errors import SandboxError

    try:
        make_backend("local")
    except SandboxError as error:
        pytest.skip(f"no sandbox works here: {error}")


class ScriptedServer:
    """A server that speaks OpenAI's API and says what it is told to.

    Attributes:
        policy: the SPEC of a policy that asks it.
        asked: the requests so far.
        answer: (requests so far, prompt) -> what it says next.
        reply: request -> the whole message, in place of ``answer``.
    """

    def __init__(self):
        self.policy, self.asked, self.answer = "", [], lambda asked, prompt: ""
        self.reply = lambda body: {"content": self.answer(self.asked, body["messages"][-1]["content"])}


@pytest.fixture
def scripted_server():
    scripted = ScriptedServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            scripted.asked.append(body)
            message = {"role": "assistant", **scripted.reply(body)}
            usage = {"prompt_tokens": 10, "completion_tokens": 7, "total_tokens": 17}
            data = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            """Nothing is told."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    scripted.policy = f"openai:http://127.0.0.1:{server.server_port}/v1#toy"
    yield scripted
    server.shutdown()
    server.server_close()
    thread.join()


# ChatML with tools; it only appends.
CHAT_TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    '{% for c in m.tool_calls or [] %}<tool_call>\n{"name": "{{ c.function.name }}", "arguments": '
    "{{ c.function.arguments | tojson }}}\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def huggingface_checkpoint(tmp_path_factory):
    """A folder with a tiny model that runs in transformers' own code: a Qwen 3 with biases that our decoder has not."""
    return _tiny_qwen3(tmp_path_factory.mktemp("huggingface") / "qwen3", attention_bias=True)


@pytest.fixture(scope="session")
def family_checkpoint(tmp_path_factory):
    """The same, of a family that our decoder runs."""
    return _tiny_qwen3(tmp_path_factory.mktemp("family") / "qwen3", attention_bias=False)


def _tiny_qwen3(folder, *, attention_bias):
    """Random weights, a byte-level tokenizer, and a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    # With "l s" and "e r" merged, sampled bytes are encoded again as other ids.
    vocabulary = {token: number for number, token in enumerate([*alphabet, "ls", "er"])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[("l", "s"), ("e", "r")]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=1024, tie_word_embeddings=True,
        attention_bias=attention_bias,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():  # sharp distributions: errors show
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6.0)
    model.save_pretrained(folder)
    return folder
