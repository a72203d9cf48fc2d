"""What a run needs of a cluster, and what is said, before anything starts, where the cluster is not one to run it."""

import sys
from pathlib import Path

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


def test_a_dry_run_says_what_a_rank_holds_and_starts_nothing(capsys, monkeypatch):
    pytest.importorskip("ray", reason="the extra cluster is not installed")
    monkeypatch.setenv("COLUMNS", "300")
    recipe = str(RECIPES / "cwm-32b-grpo.toml")
    assert main(["train", recipe, "--dry-run", "--ray", "head:6379"]) == 0
    told = capsys.readouterr().out
    # 32,581,097,472 parameters over 64 ranks: 12 bytes each of weights and moments, twice 2 bytes to publish.
    assert "5.7 GiB of weights and moments on its device" in told
    assert "1.9 GiB to publish" in told
    assert "--ray head:6379 --out FOLDER-THAT-ALL-SEE" in told
    assert "2, placed on the cluster, each over 8 processes" in told
