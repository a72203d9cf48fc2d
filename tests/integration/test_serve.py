"""``verigym serve`` as a user meets it: a process of its own, asked by clients of others."""

import json
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import httpx
import pytest
import torch

from verigym.__main__ import main
from verigym.model.attention import Documents
from verigym.model.chat.cwm import CwmRenderer
from verigym.model.chat.messages import Message
from verigym.model.checkpoint import save_checkpoint
from verigym.model.config import preset
from verigym.model.decoder import Decoder
from verigym.model.tokenizer import train_tokenizer

PROBLEMS = [
    {"id": f"p{i}", "problem": f"What is {i} + 1? Answer with the number.", "answer": str(i + 1), "level": "1"}
    for i in range(2)
]


def tiny(folder, *, texts, context=512, teach=(), steps=0):
    """Save a small model; taught, it says by heart what was shown to it: (messages, tools, answer) of each turn."""
    torch.set_num_threads(1)
    tokenizer = train_tokenizer(texts, 400)
    config = preset("cwm-tiny", vocab_size=tokenizer.vocab_size, max_position_embeddings=context)
    decoder = Decoder(config, seed=0)
    renderer = CwmRenderer(tokenizer)
    ids, targets, index, lengths = [], [], [], []
    for messages, tools, answer in teach:
        prompt, said = renderer.start(messages, tools).token_ids, renderer.encode_turn(answer)
        start = len(ids)
        ids += [*prompt, *said]
        lengths.append(len(prompt) + len(said))
        index += range(start + len(prompt) - 1, start + lengths[-1] - 1)
        targets += said
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=3e-3)
    for _ in range(steps):
        logprobs, _ = decoder.score(
            torch.tensor(ids), Documents.from_lengths(lengths), torch.tensor(targets), index=torch.tensor(index)
        )
        optimizer.zero_grad()
        (-logprobs.mean()).backward()
        optimizer.step()
        if float(logprobs.detach().min()) > -0.05:
            break
    save_checkpoint(folder, decoder, tokenizer)
    return folder


@contextmanager
def serving(checkpoint, *options):
    """(base URL, process) of ``verigym serve``."""
    argv = [sys.executable, "-m", "verigym", "serve", str(checkpoint), "--port", "0", "--threads", "1", *options]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert " at http://" in line, process.stderr.read()
        yield line.split(" at ")[1].strip(), process
    finally:
        process.terminate()
        process.communicate(timeout=120)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    texts = ["What is 3 + 4? Answer with the number.\n" * 20]
    return tiny(tmp_path_factory.mktemp("served") / "tiny", texts=texts)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_right_after_its_first_line_is_not_lost(checkpoint, number):
    with serving(checkpoint) as (_, process):
        process.send_signal(number)
        assert process.wait(60) == 0


def test_evals_through_a_server_and_a_drain_at_the_end(checkpoint, tmp_path):
    """SIGTERM: what is in work ends whole, nothing new comes in, and the process ends with 0."""
    rows = "".join(json.dumps(row) + "\n" for row in PROBLEMS)
    (tmp_path / "problems.jsonl").write_text(rows)
    with serving(checkpoint, "--max-batch", "4", "--logprobs-mode", "processed_logprobs") as (url, process):
        argv = ["eval", "math500", "--data", str(tmp_path / "problems.jsonl"), "--policy", f"openai:{url}#tiny"]
        assert main([*argv, "--max-tokens", "12", "--samples", "2", "--out", str(tmp_path / "run")]) == 0
        report = json.loads((tmp_path / "run" / "report.json").read_text())
        assert (report["num_predictions"], report["num_infrastructure_failures"]) == (4, 0)
        check_token_endpoints(checkpoint, url, tmp_path)
        answers = []

        def ask():
            body = {"model": "tiny", "prompt": [7, 8], "max_tokens": 400, "ignore_eos": True, "stream": True}
            with httpx.stream("POST", f"{url}/completions", json=body, timeout=120) as response:
                answers.extend(response.iter_lines())

        thread = threading.Thread(target=ask)
        thread.start()
        deadline = time.monotonic() + 60
        while not answers:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        thread.join(120)
        assert process.wait(120) == 0
        assert answers[-2:] == ["data: [DONE]", ""]
        events = [json.loads(line[6:]) for line in answers if line.startswith("data: {")]
        assert events[-1]["choices"][0]["finish_reason"] == "length"
        assert len(events) == 400
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{url}/models")


def check_token_endpoints(checkpoint, url, tmp_path):
    """Ids, log-probabilities and versions of every sampled token come over HTTP."""
    argv = ["eval", "math500", "--data", str(tmp_path / "problems.jsonl"), "--max-tokens", "8", "--save-trajectories"]
    argv += ["--samples", "2", "--seed", "3"]
    spec = f"tokens:{checkpoint}@{url.removesuffix('/v1')}#tiny"
    assert main([*argv, "--policy", spec, "--out", str(tmp_path / "remote")]) == 0
    assert main([*argv, "--policy", f"engine:{checkpoint}", "--out", str(tmp_path / "local")]) == 0
    remote, local = (
        sorted((tmp_path / name / "trajectories.jsonl").read_text().splitlines()) for name in ("remote", "local")
    )
    assert len(remote) == len(local) == 4
    for ours, theirs in zip(remote, local, strict=True):
        ours, theirs = (json.loads(row)["segments"][0] for row in (ours, theirs))
        assert ours["token_ids"] == theirs["token_ids"]
        assert ours["loss_mask"] == theirs["loss_mask"]
        sampled = [i for i, own in enumerate(ours["loss_mask"]) if own]
        assert [ours["logprobs"][i] for i in sampled] == pytest.approx(
            [theirs["logprobs"][i] for i in sampled], abs=1e-4
        )


def test_a_policy_whose_tokenizer_is_nowhere_is_told(tmp_path, capsys):
    (tmp_path / "problems.jsonl").write_text(json.dumps(PROBLEMS[0]) + "\n")
    missing = f"tokens:{tmp_path}/no@http://127.0.0.1:9#tiny"
    assert main(["eval", "math500", "--data", str(tmp_path / "problems.jsonl"), "--policy", missing]) == 2
    assert "there is no checkpoint at" in capsys.readouterr().err


def test_what_cannot_be_served_is_told_in_one_line(checkpoint, tmp_path, capsys):
    for argv, told in (
        ([str(tmp_path / "nowhere")], "there is no checkpoint at"),
        ([str(checkpoint), "--max-context", "100000"], "max_context is 100000"),
        ([str(checkpoint), "--port", "99999"], "cannot listen on 127.0.0.1:99999"),
        ([str(checkpoint), "--max-body-mib", "0"], "--max-body-mib must be at least 1"),
    ):
        assert main(["serve", "--port", "0", *argv]) == 2
        err = capsys.readouterr().err
        assert told in err
        assert err.count("\n") == 1


def test_a_taught_model_calls_a_tool_of_the_official_client(tmp_path):
    tool = {
        "type": "function",
        "function": {
            "name": "bash",
            "description": "Run it.",
            "parameters": {"type": "object", "properties": {"command": {"type": "string"}}},
        },
    }
    import openai

    from verigym.model.chat.api import from_openai_tools

    question = Message(role="user", content="List the files.")
    said = "I look.\n<tool: bash>\nls -l\n</tool>"
    folder = tiny(
        tmp_path / "taught", texts=[said * 20], teach=[([question], from_openai_tools([tool]), said)], steps=300
    )
    with serving(folder) as (url, _), openai.OpenAI(base_url=url, api_key="none") as client:
        options = {"model": "taught", "messages": [{"role": "user", "content": "List the files."}], "tools": [tool]}
        choice = client.chat.completions.create(**options, temperature=0, logprobs=True).choices[0]
        assert json.loads(choice.message.tool_calls[0].function.arguments) == {"command": "ls -l"}
        assert (choice.message.content, choice.finish_reason) == ("I look.", "tool_calls")
        assert all(row.logprob > -0.5 for row in choice.logprobs.content)
        events = client.chat.completions.create(**options, temperature=0, stream=True)
        deltas = [event.choices[0].delta for event in events]
        assert "".join(delta.content or "" for delta in deltas) == "I look."
        (call,) = [call for delta in deltas for call in delta.tool_calls or ()]
        assert json.loads(call.function.arguments) == {"command": "ls -l"}


@pytest.mark.docker
@pytest.mark.slow
def test_a_swe_suite_in_containers_through_the_server(published_rows, tmp_path):
    """A model that knows nothing solves nothing; but it is asked, its work is graded, and the report is whole."""
    folder = tiny(tmp_path / "tiny", texts=["Mend the repository.\n" * 20], context=8192)
    out = tmp_path / "run"
    with serving(folder, "--max-batch", "2") as (url, _):
        argv = [sys.executable, "-m", "verigym", "eval", "swebench_verified", "--data", str(published_rows)]
        argv += ["--policy", f"openai:{url}#tiny", "--sandbox", "docker", "--out", str(out)]
        done = subprocess.run([*argv, "--max-turns", "2", "--max-tokens", "48"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    report = json.loads((out / "report.json").read_text())
    assert (report["pass@1"], report["n"], report["num_predictions"]) == (0.0, 2, 2)
    assert (report["num_infrastructure_failures"], report["num_ungradable"]) == (0, 0)
    verdicts = [json.loads(line) for line in (out / "verdicts.jsonl").read_text().splitlines()]
    assert all(one["num_turns"] >= 1 for one in verdicts)
    patches = [json.loads(line)["model_patch"] for line in (out / "preds.jsonl").read_text().splitlines()]
    assert patches == ["", ""]


def test_it_ends_with_a_process_that_was_not_even_waited_for(checkpoint):
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with serving(checkpoint, "--end-with", str(other.pid)) as (_, process):
        time.sleep(2)
        assert process.poll() is None
        other.kill()
        assert process.wait(60) == 0
    other.wait()
    other.stdin.close()
