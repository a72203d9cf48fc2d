"""Every suite of programs end to end: a server that speaks OpenAI's API answers, programs run, ``grade`` agrees."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from verigym.__main__ import main
from verigym.envs.sandbox.choose import make_backend
from verigym.errors import SandboxError

ADD = "a, b = map(int, input().split())\nprint(a {sign} b)"
DOUBLE = "class Solution:\n    def double(self, x: int) -> int:\n        return 2 * x\n"
CASE = '[{"input": "1 2", "output": "3", "testtype": "stdin"}, {"input": "2 2\\n", "output": "4\\n"}]'
CALL = '[{"input": "4", "output": "8", "testtype": "functional"}]'
SUITES = {
    "livecodebench": [
        {
            "question_id": name,
            "question_content": f"Problem {name}",
            "starter_code": starter,
            "difficulty": difficulty,
            "contest_date": "2024-10-01T00:00:00",
            "public_test_cases": cases,
            "private_test_cases": "",
            "metadata": metadata,
        }
        for name, starter, difficulty, cases, metadata in (
            ("sum", "", "easy", CASE, "{}"),
            ("difference", "", "hard", CASE, "{}"),
            ("double", "class Solution:\n    def double(self, x)", "easy", CALL, '{"func_name": "double"}'),
        )
    ],
    "humaneval": [
        {
            "task_id": f"HumanEval/{number}",
            "prompt": f'def {name}(x):\n    """Problem {name}."""\n',
            "entry_point": name,
            "canonical_solution": "    return x + 1\n",
            "test": "def check(candidate):\n    assert candidate(1) == 2\n",
        }
        for number, name in enumerate(("after", "before"))
    ],
    "mbpp": [
        {
            "task_id": number,
            "text": f"Problem {name}",
            "code": f"def {name}(x):\n    return x + 1\n",
            "test_list": [f"assert {name}(1) == 2"],
        }
        for number, name in enumerate(("after", "before"), start=2)
    ],
    "cruxeval": [{"id": "sample_0", "code": "def f(x):\n    return [x, x]", "input": "1", "output": "[1, 1]"}],
}
ANSWERS = {
    "Problem sum": f"<think>```python\nno\n```</think>So:\n```python\n{ADD.format(sign='+')}\n```",
    "Problem difference": f"```python\n{ADD.format(sign='-')}\n```",
    "Problem double": f"```python\n{DOUBLE}```\nIt doubles.",
    "Problem after": "```python\ndef after(x):\n    return x + 1\n```",
    "Problem before": "```python\ndef before(x):\n    return x - 1\n```",
    "What does this call give?": "[ANSWER][1, 1][/ANSWER]",
    "Find arguments": "[ANSWER]f(2)[/ANSWER]",
}
EXPECTED = {
    "livecodebench": [True, False, True],
    "humaneval": [True, False],
    "mbpp": [True, False],
    "cruxeval": [False, True],  # the input, then the output
}


class Handler(BaseHTTPRequestHandler):
    asked = []  # noqa: RUF012 (read by the test)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(body)
        prompt = body["messages"][-1]["content"]
        said = next(answer for part, answer in ANSWERS.items() if part in prompt)
        message = {"role": "assistant", "content": said}
        usage = {"prompt_tokens": 10, "completion_tokens": 7, "total_tokens": 17}
        data = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        """Nothing is told."""


@pytest.fixture
def server():
    Handler.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"openai:http://127.0.0.1:{server.server_port}/v1#toy"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module", autouse=True)
def _a_sandbox():
    try:
        make_backend("local")
    except SandboxError as error:
        pytest.skip(f"no sandbox works here: {error}")


def verdicts_of(folder):
    rows = [json.loads(line) for line in (folder / "verdicts.jsonl").read_text().splitlines()]
    return [row["passed"] for row in rows]


@pytest.mark.parametrize("suite", list(SUITES))
def test_a_suite_of_programs_runs_against_a_server(suite, server, tmp_path):
    data, out, graded = tmp_path / "data.jsonl", tmp_path / "out", tmp_path / "graded"
    data.write_text("".join(json.dumps(row) + "\n" for row in SUITES[suite]))
    command = ["eval", suite, "--data", str(data), "--policy", server, "--out", str(out), "--sandbox", "local"]
    assert main([*command, "--samples", "2", "--workers", "2"]) == 0
    wanted = [passed for passed in EXPECTED[suite] for _ in range(2)]
    assert verdicts_of(out) == wanted
    report = json.loads((out / "report.json").read_text())
    assert report["pass@1"] == report["pass@2"] == pytest.approx(sum(EXPECTED[suite]) / len(EXPECTED[suite]))
    assert report["num_infrastructure_failures"] == 0
    if suite == "livecodebench":
        assert {(body["temperature"], body["top_p"], body["max_tokens"]) for body in Handler.asked} == {
            (1.0, 0.95, 65536)
        }
        assert "evals/configs/eval_lcb.yaml" in report["sources"]["temperature"]
        assert report["breakdown"]["difficulty"]["easy"]["pass@1"] == 1.0
        assert report["breakdown"]["difficulty"]["hard"]["pass@1"] == 0.0
    # What was recorded is what ``grade`` takes.
    command = ["grade", suite, "--data", str(data), "--predictions", str(out / "preds.jsonl"), "--out", str(graded)]
    assert main([*command, "--sandbox", "local"]) == 0
    assert verdicts_of(graded) == wanted
