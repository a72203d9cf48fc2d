"""``verigym serve``: a checkpoint behind OpenAI's HTTP interface. Heavy imports wait until it runs."""

import argparse
import ipaddress
import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..chat.keys import API_KEY, WEIGHTS_KEY, key_in

if TYPE_CHECKING:
    from .access import Access

_SECONDS_BETWEEN_LOOKS = 1.0


def register(commands: Any) -> None:
    """Add ``serve`` to the commands."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "serve",
        help="serve a checkpoint behind OpenAI's HTTP interface",
        description="Serve a checkpoint behind OpenAI's HTTP interface: /v1/models, /v1/completions, "
        "/v1/chat/completions, /health, /metrics. SIGTERM and Ctrl-C let what is in work end first.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder of a CWM or transformers model")
    parser.add_argument("--name", help="what clients call the model (default: the folder's name)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, metavar="P", help="0 takes a free one (default: 8000)")
    parser.add_argument("--device", metavar="D", help="cpu, cuda, ... (default: cuda where there is one)")
    parser.add_argument(
        "--attention",
        choices=("auto", "triton", "sdpa", "reference"),
        default="auto",
        help="what attention runs on (default: auto, the kernels on CUDA)",
    )
    parser.add_argument(
        "--tensor-parallel", type=int, default=1, metavar="N", help="processes that split the model (default: 1)"
    )
    parser.add_argument("--max-batch", type=int, default=64, metavar="N", help="sequences in work (default: 64)")
    parser.add_argument("--max-context", type=int, metavar="N", help="tokens of a sequence (default: the model's)")
    parser.add_argument(
        "--cache-tokens",
        type=int,
        metavar="N",
        help="whose keys and values are kept (default: --max-batch times --max-context, or what memory there is for)",
    )
    parser.add_argument(
        "--max-waiting", type=int, default=1024, metavar="N", help="requests beyond, else 429 (default: 1024)"
    )
    parser.add_argument("--max-body-mib", type=int, default=32, metavar="N", help="of a request (default: 32)")
    parser.add_argument("--threads", type=int, metavar="N", help="of the engine on the CPU (default: torch's)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of requests without a seed (default: 0)")
    parser.add_argument(
        "--logprobs-mode",
        choices=("raw_logprobs", "processed_logprobs"),
        default="raw_logprobs",
        help="log-probabilities of the model at temperature 1, or of what is drawn from (default: raw_logprobs)",
    )
    parser.add_argument(
        "--body-timeout", type=int, default=60, metavar="S", help="seconds for a request's body (default: 60)"
    )
    parser.add_argument(
        "--tools-as",
        choices=("native", "text", "taught"),
        help="how a chat template is given tools: as it writes them; where it knows none, as messages; or as messages "
        "that do not list them, to a model that was trained so (default: as the checkpoint's verigym.json says)",
    )
    parser.add_argument(
        "--chat-template",
        metavar="TEMPLATE",
        help="in place of the tokenizer's own, or where it has none: chatml, plain (questions and answers) or a "
        "Jinja file",
    )
    parser.add_argument(
        "--chat-template-kwargs",
        type=_json_object,
        default={},
        metavar="JSON",
        help="options of the chat template, such as '{\"enable_thinking\": false}'",
    )
    _add_access(parser)
    parser.add_argument(
        "--drain-timeout",
        type=int,
        default=60,
        metavar="S",
        help="seconds for what is in work at the end (default: 60)",
    )
    parser.add_argument("--end-with", type=int, metavar="PID", help="end when the process PID is gone")
    parser.set_defaults(run=run)


def _json_object(text: str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON object")
    return value


def _add_access(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--api-key",
        metavar="KEY",
        help=f"asked of every client, as a bearer token; better in the environment, as {API_KEY} (default: none)",
    )
    parser.add_argument(
        "--allow-weight-updates",
        action="store_true",
        help="add vLLM's routes /pause, /resume, /update_weights: whoever has their key can load any checkpoint",
    )
    parser.add_argument(
        "--weights-key",
        metavar="KEY",
        help=f"asked by the routes that change weights; better in the environment, as {WEIGHTS_KEY} (default: one that "
        "is made and printed)",
    )
    parser.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name that clients reach this server by, besides localhost, this machine's name and addresses; * is any",
    )
    parser.add_argument(
        "--allowed-origin",
        action="append",
        default=[],
        metavar="URL",
        help="pages that may ask from a browser, such as https://chat.example.org (default: none)",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    import uvicorn

    from ...errors import ConfigError
    from ..engine.open import open_checkpoint
    from .app import build_app
    from .patience import PatientProtocol
    from .served import Served

    if args.max_body_mib < 1 or args.body_timeout < 1 or args.max_waiting < 0 or args.drain_timeout < 0:
        raise ConfigError(
            "--max-body-mib must be at least 1, as --body-timeout, and --max-waiting and --drain-timeout at least 0"
        )
    access, made_key = _access(args)
    listener = _listen(args.host, args.port)
    model = open_checkpoint(
        args.checkpoint,
        max_batch=args.max_batch,
        max_context=args.max_context,
        cache_tokens=args.cache_tokens,
        device=args.device,
        attention=args.attention,
        tensor_parallel=args.tensor_parallel,
        max_waiting=args.max_waiting,
        seed=args.seed,
        num_threads=args.threads,
        tools=args.tools_as,
        template_options=args.chat_template_kwargs,
        chat_template=args.chat_template,
    )
    name = args.name or args.checkpoint.resolve().name
    app = build_app(
        Served(name=name, model=model, logprobs_mode=args.logprobs_mode),
        max_body_bytes=args.max_body_mib * 2**20,
        body_seconds=args.body_timeout,
        allow_weight_updates=args.allow_weight_updates,
        access=access,
    )
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=args.drain_timeout,
    )
    server = uvicorn.Server(config)
    # uvicorn drains on these signals, and then raises them once more; one that comes before it listens ends it too.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    host, port = listener.getsockname()[:2]
    listener.listen(2048)  # whoever reads the line below can connect
    print(f"serving {name} at http://{f'[{host}]' if ':' in host else host}:{port}/v1", flush=True)
    if made_key:
        print(f"weights change with the key {access.weights_key} (give it to trainers as {WEIGHTS_KEY})", flush=True)
    if access.api_key is None and not _is_loopback(host):
        print(f"anyone who reaches this address may ask; set {API_KEY} to a key", file=sys.stderr, flush=True)
    if model.chat_problem:
        print(f"no chat: {model.chat_problem}", flush=True)
    if args.end_with is not None:
        threading.Thread(target=_end_with, args=(args.end_with,), name="verigym-end-with", daemon=True).start()
    server.run(sockets=[listener])
    return 0


def _access(args: argparse.Namespace) -> "tuple[Access, bool]":
    """What clients are asked for, and whether the key of weights was made here."""
    from ...errors import ConfigError
    from .access import Access

    api_key = key_in(API_KEY, args.api_key)
    weights_key = key_in(WEIGHTS_KEY, args.weights_key)
    for name, given in (("--api-key", args.api_key), ("--weights-key", args.weights_key)):
        if given is not None and not given.strip():
            raise ConfigError(f"{name} is empty; give a key, or leave it out")
    made_key = args.allow_weight_updates and weights_key is None
    if made_key:
        weights_key = secrets.token_urlsafe(32)
    hosts = (*args.allowed_host, args.host)
    return Access(api_key=api_key, weights_key=weights_key, hosts=hosts, origins=args.allowed_origin), made_key


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def _end_with(pid: int) -> None:
    """End this process, as SIGTERM does, when another is gone."""
    while _is_there(pid):
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os.kill(os.getpid(), signal.SIGTERM)


def _is_there(pid: int) -> bool:
    """Whether a process runs; one that is dead and has only not been waited for does not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        pass
    return True


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket, so that the port is known, and a taken one told, before the model is read."""
    from ...errors import ConfigError

    if not 0 <= port <= 65535:  # getaddrinfo would take it modulo 65536
        raise ConfigError(f"cannot listen on {host}:{port}; a port is 0 to 65535")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"cannot listen on {host}:{port} ({error}); choose another --host or --port") from None
    return listener
