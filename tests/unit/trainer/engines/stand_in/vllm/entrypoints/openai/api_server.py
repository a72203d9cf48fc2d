"""What our side sees of vLLM's server, in no time: its routes, its errors, and a model that says its own version.

``MODEL/stand_in.json`` may change it: {"raw": log-probabilities of another mode, "closed": no route of tokens}.
"""

import argparse
import importlib
import json
import os
import signal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

parser = argparse.ArgumentParser()
parser.add_argument("--model", type=Path)
parser.add_argument("--port", type=int)
parser.add_argument("--host")
parser.add_argument("--max-model-len", type=int, default=1024)
parser.add_argument("--worker-extension-cls")
ARGS, REST = parser.parse_known_args()
SETTINGS = ARGS.model / "stand_in.json"
OPTIONS = json.loads(SETTINGS.read_text()) if SETTINGS.exists() else {}


class Engine:
    version, paused, told = "default", False, []


class Worker:
    def reload_weights(self, weights_iterator=None, weights_path=None):
        Engine.told.append("reload_weights" if weights_path is None else f"reload_weights {Path(weights_path).name}")


if ARGS.worker_extension_cls:
    module, _, name = ARGS.worker_extension_cls.rpartition(".")
    Worker = type("Worker", (Worker, getattr(importlib.import_module(module), name)), {})


def generated(body):
    told = body["sampling_params"]
    count = told["max_tokens"]
    version = 0 if Engine.version == "default" else int(Engine.version)
    logprob = -1.0 if OPTIONS.get("raw") or told["top_k"] != 1 else 0.0
    return {
        "token_ids": [version] * count,
        "logprobs": {"content": [{"token_id": version, "logprob": logprob}] * count},
        "finish_reason": "length",
        "stop_reason": None,
        "weight_versions": [{"version": Engine.version, "start": 0, "end": count}],
    }


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        rows = {"data": [{"id": "policy", "max_model_len": ARGS.max_model_len}]}
        stories = {"told": Engine.told, "paused": Engine.paused, "words": REST, "key": os.environ.get("VLLM_API_KEY")}
        self.answer({"/v1/models": rows, "/told": stories}.get(self.path))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        place = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(place.query).items()}
        if place.path in ("/pause", "/resume", "/reset_prefix_cache", "/update_weight_version"):
            Engine.told.append(" ".join([place.path[1:], *asked.values(), *map(str, body.values())]))
        if place.path == "/pause":
            Engine.paused = True
        elif place.path == "/resume":
            Engine.paused = False
        elif place.path == "/update_weight_version":
            assert Engine.paused
            Engine.version = body["new_version"]
        elif place.path == "/collective_rpc":
            assert Engine.paused
            self.answer({"results": [getattr(Worker(), body["method"])(**body["kwargs"])]})
            return
        elif place.path == "/inference/v1/generate" and not OPTIONS.get("closed"):
            self.answer({"choices": [generated(body)]})
            return
        elif place.path != "/reset_prefix_cache":
            self.answer(None)
            return
        self.answer({})

    def answer(self, told):
        data = json.dumps(told if told is not None else {"error": {"message": "Not Found"}}).encode()
        self.send_response(200 if told is not None else 404)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        """Nothing is told."""


ThreadingHTTPServer.allow_reuse_address = True
SERVER = ThreadingHTTPServer((ARGS.host, ARGS.port), Handler)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
print("INFO:     Application startup complete.", flush=True)
SERVER.serve_forever()
