import json
import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

from verigym.errors import ConfigError
from verigym.model.flops import work_of
from verigym.trainer.batching.documents import Document
from verigym.trainer.batching.packs import pack
from verigym.trainer.loops.metrics import MetricsWriter, open_tracker, policy_metrics, read_metrics, rollout_metrics
from verigym.trainer.loops.throughput import Throughput, peak_of, waiting_metrics
from verigym.trainer.objective.losses import PolicyLoss, TrainedTokens
from verigym.trainer.sampling.rollouts import Rollouts


def test_lines_survive_and_a_resumed_run_replaces_what_it_repeats(tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    with MetricsWriter(path) as writer:
        for step in (1, 2, 3):
            writer.write(step, {"trainer/loss/mean": 1.0 / step})
        assert len(read_metrics(path)) == 3  # on disk before the file is closed
        writer.write(4, {"trainer/loss/mean": math.nan})
    assert read_metrics(path)[-1]["trainer/loss/mean"] is None
    path.write_text(path.read_text() + '{"step": 5, "trai')  # a crash in the middle of a line
    with MetricsWriter(path, resume_step=2) as writer:
        writer.write(3, {"trainer/loss/mean": 9.0})
    rows = read_metrics(path)
    assert [(row["step"], row["trainer/loss/mean"]) for row in rows] == [(1, 1.0), (2, 0.5), (3, 9.0)]
    assert rows[2]["seconds"] >= rows[1]["seconds"]
    path.write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(ConfigError, match="line 2: no row of metrics"):
        read_metrics(path)


def test_a_file_of_which_nothing_is_dropped_stays_as_it_is_and_is_never_held_whole(tmp_path):
    path, row = tmp_path / "metrics.jsonl", {f"trainer/metric{n}/mean": 0.5 for n in range(40)}
    path.write_text("".join(json.dumps({"step": step, "seconds": step / 2, **row}) + "\n" for step in range(1, 3001)))
    before = path.stat()
    tracemalloc.start()
    with MetricsWriter(path, resume_step=3000) as writer:
        assert path.stat().st_ino == before.st_ino
        writer.write(3001, row)
    assert tracemalloc.get_traced_memory()[1] < before.st_size / 8
    with MetricsWriter(path, resume_step=2999):
        assert path.stat().st_ino != before.st_ino
    assert tracemalloc.get_traced_memory()[1] < before.st_size / 8
    tracemalloc.stop()
    last = read_metrics(path)[-1]
    assert (last["step"], last["seconds"]) == (2999, 1499.5)


def test_a_last_line_without_its_end_is_kept_apart_from_the_next(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}')
    with MetricsWriter(path, resume_step=2) as writer:
        writer.write(3, {})
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]


def test_a_tracker_of_accelerate_gets_every_step(tmp_path, monkeypatch):
    tracking = pytest.importorskip("accelerate.tracking", reason="accelerate brings the trackers")
    seen = []

    class FileTracker(tracking.GeneralTracker):
        name = "in_memory"
        requires_logging_directory = True
        tracker = None

        def __init__(self, run_name, logging_dir):
            super().__init__()
            seen.append((run_name, logging_dir))

        def start(self):
            pass

        def store_init_configuration(self, values):
            seen.append(values)

        def log(self, values, step=None, **kwargs):
            seen.append((step, values))

        def finish(self):
            seen.append("finished")

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "in_memory", FileTracker)
    config = {"name": "x", "rl": {"train": {"clip_low": 0.2, "betas": [0.9, 0.95]}, "max_steps": None}}
    tracker = open_tracker("in_memory", run_name="run", folder=tmp_path, config=config)
    with MetricsWriter(tmp_path / "metrics.jsonl", tracker=tracker) as writer:
        writer.write(1, {"trainer/loss/mean": 0.5})
    flat = {"name": "x", "rl/train/clip_low": 0.2, "rl/train/betas": json.dumps([0.9, 0.95])}
    assert seen == [("run", str(tmp_path)), flat, (1, {"trainer/loss/mean": 0.5}), "finished"]


def test_a_tracker_that_is_unknown_or_not_installed_is_refused_with_the_remedy(tmp_path, monkeypatch):
    tracking = pytest.importorskip("accelerate.tracking", reason="accelerate brings the trackers")
    assert open_tracker(None, run_name="run", folder=tmp_path, config={}) is None
    with pytest.raises(ConfigError, match=r"no experiment tracker 'wandbb'; accelerate knows .*wandb"):
        open_tracker("wandbb", run_name="run", folder=tmp_path, config={})
    monkeypatch.setattr(tracking, "_available_trackers", [])
    with pytest.raises(ConfigError, match="pip install wandb"):
        open_tracker("wandb", run_name="run", folder=tmp_path, config={})


def test_rewards_are_of_graded_episodes_only(make_trajectory):
    episodes = (
        make_trajectory(reward=1.0),
        make_trajectory(reward=0.0, ending="turn_limit"),
        make_trajectory(reward=None, ending="sandbox_failure"),
    )
    found = rollout_metrics(Rollouts(trajectories=episodes, num_retries=3))
    assert found["rollout/reward/mean"] == found["rollout/reward_f/mean"] == 0.5
    assert found["rollout/truncated/rate"] == 0.5
    counts = ("episodes", "failures", "retries")
    assert [found[f"rollout/{name}/count"] for name in counts] == [2, 1, 3]


def test_speed_and_the_share_of_a_given_peak(make_decoder):
    decoder = make_decoder()
    work = work_of(decoder)
    rng = np.random.default_rng(0)
    documents = [
        Document(
            token_ids=rng.integers(0, 300, length),
            targets=rng.integers(0, 300, length),
            loss_mask=np.arange(length) >= 2,
            old_logprobs=np.zeros(length, np.float32),
        )
        for length in (5, 8)
    ]
    packs = pack(documents, max_tokens=8)
    assert len(packs) == 2
    assert work is not None
    speed = Throughput(decoder, peak_tflops=1e-3)
    speed.passed(documents, times=2)
    speed.trained(packs)
    flops = sum(2 * work.forward([n], n - 2) + work.update([n], n - 2) for n in (5, 8))
    found = speed.metrics(0.5, 13.0)
    assert found["trainer/tokens_per_second/mean"] == 26.0
    assert found["trainer/tflops/mean"] == pytest.approx(flops / 0.5 / 1e12)
    assert found["trainer/mfu/mean"] == pytest.approx(flops / 0.5 / 1e9)
    assert found["trainer/memory_peak/mib"] > 50
    assert speed.metrics(0.5, 13.0)["trainer/tflops/mean"] == 0.0  # counted once
    assert set(speed.metrics(1.0, 0.0)) == {"trainer/memory_peak/mib"}
    assert "trainer/mfu/mean" not in Throughput(decoder).metrics(0.5, 13.0)


def test_the_peak_of_a_gpu_is_looked_up_by_its_name(monkeypatch):
    cuda = torch.device("cuda")
    for name, peak in {
        "NVIDIA H100 80GB HBM3": 989.0,
        "NVIDIA H100 PCIe": 756.0,
        "NVIDIA L40S": 362.0,
        "NVIDIA L4": 121.0,
        "Tesla T4": None,
    }.items():
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert peak_of(cuda) == peak, name
    assert peak_of(torch.device("cpu")) is None


def test_who_waited_for_whom():
    rollout = {"rollout/sampled_tokens/mean": 12.5, "rollout/episodes/count": 8.0}
    assert waiting_metrics(rollout, sampling=4.0, sampler_idle=1.5, trainer_idle=4.0) == {
        "rollout/tokens_per_second/mean": 25.0,
        "rollout/seconds/idle": 1.5,
        "trainer/seconds/idle": 4.0,
    }
    assert waiting_metrics({}, sampling=0.0, sampler_idle=0.0, trainer_idle=0.0)["rollout/tokens_per_second/mean"] == 0


def test_the_effective_sample_size_is_of_the_first_update():
    # Importance weights 1, 1, 2 and 4: (1 + 1 + 2 + 4)^2 / (4 (1 + 1 + 4 + 16)) = 64 / 88.
    new = torch.tensor([1.0, 1.0, 2.0, 4.0]).log()
    tokens = TrainedTokens(old_logprobs=torch.zeros(4), advantages=torch.ones(4))
    found = PolicyLoss()(new, torch.zeros(4), tokens)
    update = {name: float(value.mean()) for name, value in found.metrics.items()}
    update |= {"loss": 0.0, "logprob_gap/max": float(found.maxima["logprob_gap"].max())}
    later = {**update, "sampler_weight": 9.0}
    metrics = policy_metrics([update, later])
    assert metrics["trainer/sampler_effective_sample_size/share"] == pytest.approx(64 / 88)


def test_each_part_of_the_reward_has_a_mean_in_its_family(make_trajectory):
    def one(family, reward, **parts):
        return replace(make_trajectory(reward=reward), family=family, breakdown=parts)

    failed = replace(make_trajectory(reward=None), family="swe", ending="grader_failure")
    episodes = (one("swe", 1.0, resolved=1.0, tests=1.0), one("swe", 0.0, resolved=0.0, tests=0.5), failed)
    metrics = rollout_metrics(Rollouts(trajectories=(*episodes, one("code", 0.25, tests=0.25))))
    parts = {name: value for name, value in metrics.items() if name.startswith("rollout/part")}
    assert parts == {
        "rollout/part_swe.resolved/mean": 0.5,
        "rollout/part_swe.tests/mean": 0.75,
        "rollout/part_code.tests/mean": 0.25,
    }
    assert metrics["rollout/reward/mean"] == pytest.approx(1.25 / 3)
