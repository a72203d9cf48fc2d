"""What a run needs of a cluster, and what is said, before anything starts, where the cluster is not one to run it."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from verigym.__main__ import main
from verigym.errors import ConfigError
from verigym.model.parallel.layout import Layout
from verigym.trainer.cluster.bundles import (
    Need,
    cluster_of,
    engine_need,
    missing,
    most_workers,
    needs_of,
    trainer_need,
)
from verigym.trainer.cluster.connect import MachineFacts, check_machines
from verigym.trainer.recipe.cluster import ClusterConfig
from verigym.trainer.recipe.fits import Need as MemoryNeed
from verigym.trainer.recipe.fits import check_fits, needs_of_rank
from verigym.trainer.recipe.load import load_recipe

RECIPES = Path(__file__).resolve().parents[4] / "recipes"
ENGINES = ("--set", "engines.count=2")


def recipe_of(*changes):
    return load_recipe("smoke", ["engines.count=2", "cluster.rank_gpus=0", "cluster.ranks=2", *changes])


def test_a_tensor_group_lies_on_one_machine():
    need = trainer_need(ClusterConfig(ranks=16, rank_cpus=2), Layout(shard=2, tensor=8))
    assert need.bundles == ({"CPU": 16.0, "GPU": 8.0},) * 2
    eight = [{"CPU": 64.0, "GPU": 8.0}] * 2
    assert missing(eight, [need]) is None
    # As many GPUs, but no machine has a whole group.
    told = missing([{"CPU": 64.0, "GPU": 4.0}] * 4, [need])
    assert told == "no place for 2 of 2 ranks (16 CPU, 8 GPU each, on one machine)"


def test_everything_of_a_run_finds_its_place_or_is_named():
    needs = needs_of(recipe_of("cluster.workers=3"), Layout(shard=2))
    assert [(need.name, len(need.bundles), need.strategy) for need in needs] == [
        ("controller", 1, "PACK"),
        ("ranks", 2, "PACK"),
        ("engine", 1, "STRICT_PACK"),
        ("engine", 1, "STRICT_PACK"),
        ("episode workers", 3, "SPREAD"),
    ]
    assert missing([{"CPU": 8.0, "sandbox": 3.0}], needs) is None
    assert "3 of 3 episode workers (1 CPU, 1 sandbox each" in str(missing([{"CPU": 8.0}], needs))
    told = str(missing([{"CPU": 4.0, "sandbox": 1.0}, {"CPU": 1.0, "sandbox": 1.0}], needs))
    assert "2 of 3 episode workers" in told or "episode workers" in told
    assert missing([], needs) is not None


def test_large_bundles_are_placed_before_small_ones():
    small = Need(name="small", bundles=({"CPU": 1.0},) * 4, strategy="SPREAD")
    large = Need(name="large", bundles=({"CPU": 4.0},), strategy="PACK")
    assert missing([{"CPU": 4.0}, {"CPU": 4.0}], [small, large]) is None


def test_as_many_workers_as_find_a_place_beside_engines():
    config = ClusterConfig(rank_gpus=0)
    machines = [{"CPU": 3.0, "sandbox": 2.0}, {"CPU": 1.0, "sandbox": 4.0}, {"CPU": 8.0}]
    assert most_workers(machines, config) == 3
    assert most_workers(machines[:2], config, [engine_need(config, 1)]) == 3
    assert most_workers(machines[1:2], config, [engine_need(config, 1)]) == 0
    assert most_workers(machines, config.model_copy(update={"sandbox": 2.0})) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["engines.count=0", "engines.urls=['http://a']", "engines.weights='/w'"], "set engines.count"),
        (["engines.gpus=[0, 1]"], "remove engines.gpus"),
    ],
)
def test_engines_that_ray_cannot_place(changes, message):
    with pytest.raises(ConfigError, match=message):
        cluster_of(recipe_of(*changes))


def test_machines_that_differ_or_do_not_see_the_folder(tmp_path):
    own = {"Python": "3.11.7", "verigym": "0.2.0"}
    same = MachineFacts(name="a", versions=own, sees="yes")
    check_machines([same], own, tmp_path, "yes")
    other = MachineFacts(name="b", versions={**own, "verigym": "0.1.0"}, sees="yes")
    with pytest.raises(ConfigError, match=r"b has verigym 0\.1\.0 and this machine 0\.2\.0; install the same versions"):
        check_machines([same, other], own, tmp_path, None)
    blind = MachineFacts(name="c", versions=own, sees=None)
    with pytest.raises(ConfigError, match=r"c do not see the run's folder .*; give an --out on a file system"):
        check_machines([same, blind], own, tmp_path, None)
    lacking = MachineFacts(name="e", versions=own, sees="yes", lacks=("/models/32b",))
    with pytest.raises(ConfigError, match=r"e does not see /models/32b; put it on a file system that all machines"):
        check_machines([same, lacking], own, tmp_path, None)
    stale = MachineFacts(name="d", versions=own, sees="another file")
    with pytest.raises(ConfigError, match="d do not see"):
        check_machines([same, stale], own, tmp_path, "yes")


def test_without_ray_the_extra_is_named_and_nothing_starts(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    out = tmp_path / "run"
    assert main(["train", str(RECIPES / "smoke.toml"), "--out", str(out), "--ray", "local", *ENGINES]) == 2
    assert "pip install 'verigym[cluster]'" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "set engines.count"),
        ((*ENGINES, "--ranks", "2", "--dry-run"), "set cluster.ranks"),
        ((*ENGINES, "--set", "cluster.ranks=3"), "hidden_size 128 cannot be split 3 ways"),
        ((*ENGINES, "--set", "cluster.ranks=3", "--set", "layout.tensor=2"), "3 processes cannot be split into groups"),
    ],
)
def test_what_cannot_be_placed_is_refused_before_ray_is_asked(tmp_path, capsys, options, message):
    pytest.importorskip("ray", reason="the extra cluster is not installed")
    out = tmp_path / "run"
    assert main(["train", str(RECIPES / "smoke.toml"), "--out", str(out), "--ray", "local", *options]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.slow  # the step of 8 layers of the full model is traced: 16 processor seconds
def test_a_dry_run_says_what_a_rank_needs_and_starts_nothing(capsys, monkeypatch):
    pytest.importorskip("ray", reason="the extra cluster is not installed")
    monkeypatch.setenv("COLUMNS", "300")
    recipe = str(RECIPES / "cwm-32b-grpo.toml")
    assert main(["train", recipe, "--dry-run", "--ray", "head:6379"]) == 0
    told = capsys.readouterr().out
    # 32,581,097,472 parameters over 64 ranks: 12 bytes each of weights and moments, twice 2 bytes to publish.
    assert "1.90 GiB of 80 on its device" in told  # load
    assert "26.57 GiB of 80 on its device" in told  # step
    assert "5.69 GiB of 80 on its device, 2.17 of 128 on its host" in told  # publish
    assert "5.69 GiB of 80 on its device, 6.68 of 128 on its host" in told  # save
    assert "--ray head:6379 --out FOLDER-THAT-ALL-SEE" in told
    assert "2, placed on the cluster, each over 8 processes" in told


def test_a_rank_needs_a_share_of_what_is_loaded_copied_and_kept(monkeypatch):
    def traced(config, layout, lengths):  # what the slow test above really traces
        return SimpleNamespace(peak_bytes=1 << 30)

    monkeypatch.setattr("verigym.model.plan.search.trace_by_period", traced)
    recipe = recipe_of("engines.dtype='bfloat16'")
    found, four = (needs_of_rank(recipe, Layout(shard=shard)) for shard in (2, 4))
    assert [need.what for need in found] == ["load", "step", "publish", "save"]
    for ours, theirs in ((one, other) for one, other in zip(found, four, strict=True) if one.what != "step"):
        assert theirs.device_bytes == pytest.approx(ours.device_bytes / 2)
        assert theirs.host_bytes == pytest.approx(ours.host_bytes / 2)
    load, step, publish, save = found
    assert save.device_bytes == publish.device_bytes == 3 * load.device_bytes
    assert step.device_bytes == 1 << 30
    assert step.host_bytes == load.device_bytes / 2  # what was published is kept where changes alone are sent
    assert recipe.cluster is not None
    check_fits(found, recipe.cluster)
    whole = needs_of_rank(recipe_of("engines.dtype='float32'"), Layout(shard=2))
    assert whole[1].host_bytes == 0


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"gpu_gib": 1e-4}, r"a rank's load takes .* of its device's memory, and cluster.gpu_gib is 0.0001"),
        ({"rank_host_gib": 1e-3}, r"a rank's save takes .* of its host's memory, and cluster.rank_host_gib is 0.001"),
        ({"rank_gpus": 0, "rank_host_gib": 0.01}, r"a rank's step takes .* of its host's memory"),
    ],
)
def test_what_does_not_fit_is_refused(limits, message):
    shard = 1 << 19  # bytes; a step's activations are the most, but on the device alone
    device, host = (shard, 60 * shard, 3 * shard, 3 * shard), (shard / 9, shard / 2, shard, 4 * shard)
    names = ("load", "step", "publish", "save")
    known = [MemoryNeed(what=w, device_bytes=d, host_bytes=h) for w, d, h in zip(names, device, host, strict=True)]
    with pytest.raises(ConfigError, match=message):
        check_fits(known, ClusterConfig(**limits))


def test_gpus_that_this_machine_has_not_are_told_before_anything_starts(tmp_path, capsys, monkeypatch):
    pytest.importorskip("ray", reason="the extra cluster is not installed")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    argv = ["train", str(RECIPES / "smoke.toml"), "--out", str(tmp_path / "run"), "--ray", "local", *ENGINES]
    assert main(argv) == 2
    told = capsys.readouterr().err
    assert "3 GPUs of this machine, which has 1" in told
    assert "cluster.rank_gpus=0" in told
    assert not (tmp_path / "run").exists()
