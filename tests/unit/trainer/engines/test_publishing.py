"""What a fleet publishes, and keeps: whole weights now and then, changes between them, nothing that nobody reads."""

import asyncio

import pytest

from verigym.errors import PolicyError, RequestRefused
from verigym.model.server.process import StartFailed
from verigym.model.weights.delta import DELTA
from verigym.trainer.engines.fleet import TRIES_AT_FIRST, Fleet
from verigym.trainer.engines.server import FleetServer
from verigym.trainer.engines.sizes import Sizes
from verigym.trainer.recipe.config import EnginesConfig


class Connected:
    """An engine that is there."""

    async def aclose(self):
        pass


class Started:
    """A process that is there."""

    async def url(self, timeout_s):
        return "http://nowhere"

    async def aclose(self):
        pass


@pytest.fixture
def world(tmp_path, monkeypatch):
    """(a fleet whose servers take what they are told, what was started with and pushed, who refuses changes)."""
    told, refusing = [], set()

    async def push(self, version, weights, *, mode="abort", clear_cache=False):
        changes = (weights / DELTA).exists()
        told.append(("push", self.place, version, weights.name))
        if changes and self.place in refusing:
            raise RequestRefused("its sum differs")

    async def connect(self):
        return Connected()

    def launch(place, weights, *, log, options, environment):
        assert not (weights / DELTA).exists(), "nothing begins with changes"
        told.append(("start", place, weights.name))
        return Started()

    def save(folder, whole):
        folder.mkdir(parents=True)
        if not whole and told:
            (folder / DELTA).write_text("{}")

    monkeypatch.setattr(FleetServer, "push", push)
    monkeypatch.setattr(FleetServer, "connect", connect)
    sizes = Sizes(concurrency=4, max_context=64, request_seconds=5.0)
    fleet = Fleet(EnginesConfig(count=2), tmp_path, sizes, save=save, launch=launch, full_every=3)
    return fleet, told, refusing


def names(fleet):
    return sorted(path.name for path in fleet._weights_root.glob("weights-*"))


def test_changes_are_kept_until_whole_weights_take_their_place(world):
    fleet, told, _ = world

    async def main():
        async with fleet.open():
            assert sorted(told) == [("start", 0, "weights-000001"), ("start", 1, "weights-000001")]
            kept = []
            for version in range(1, 6):
                await asyncio.to_thread(fleet.update_weights, version)
                kept.append(len(names(fleet)))
            # One whole and two changes; then whole again, and what was before is gone.
            assert kept == [2, 3, 1, 2, 3]
            assert names(fleet) == ["weights-000004", "weights-000005", "weights-000006"]
        await fleet.aclose()

    asyncio.run(main())
    assert not fleet._weights_root.exists()


def test_a_server_that_comes_back_begins_with_the_last_whole_weights(world):
    fleet, told, _ = world

    async def main():
        async with fleet.open():
            await asyncio.to_thread(fleet.update_weights, 1)
            await asyncio.to_thread(fleet.update_weights, 2)
            told.clear()
            server = fleet.servers[1]
            fleet._lose(server, server.engine, RuntimeError("gone"))
            await server.reviving
            assert told == [("start", 1, "weights-000001"), ("push", 1, 2, "weights-000003")]
            assert server.engine is not None
        await fleet.aclose()

    asyncio.run(main())


def test_where_changes_are_refused_the_weights_are_published_whole(world):
    fleet, told, refusing = world

    async def main():
        async with fleet.open():
            refusing.add(1)
            await asyncio.to_thread(fleet.update_weights, 1)
            pushed = [row for row in told if row[0] == "push"]
            assert sorted(pushed) == [
                ("push", 0, 1, "weights-000002"),
                ("push", 0, 1, "weights-000003"),
                ("push", 1, 1, "weights-000002"),
                ("push", 1, 1, "weights-000003"),
            ]
            assert names(fleet) == ["weights-000003"]
            assert fleet.policy_version == 1
        await fleet.aclose()

    asyncio.run(main())


@pytest.mark.parametrize(("error", "tries"), [(PolicyError("killed"), 3), (StartFailed("no such file"), 1)])
def test_a_server_that_is_killed_before_it_is_asked_is_started_again(world, monkeypatch, error, tries):
    fleet, told, _ = world
    left = [2]

    async def url(self, timeout_s):
        if fleet.servers[0].process is self and left[0]:
            left[0] -= 1
            raise error
        return "http://nowhere"

    monkeypatch.setattr(Started, "url", url)
    monkeypatch.setattr("verigym.trainer.engines.fleet.SECONDS_BETWEEN_TRIES", 0.01)

    async def main():
        async with fleet.open():
            assert all(server.engine is not None for server in fleet.servers)
        await fleet.aclose()

    if tries > 1:
        asyncio.run(main())
    else:
        with pytest.raises(StartFailed, match="no such file"):
            asyncio.run(main())
    assert len([row for row in told if row[:2] == ("start", 0)]) == tries


def test_a_server_that_is_killed_each_time_ends_the_run(world, monkeypatch):
    fleet, told, _ = world

    async def url(self, timeout_s):
        raise PolicyError("killed")

    monkeypatch.setattr(Started, "url", url)
    monkeypatch.setattr("verigym.trainer.engines.fleet.SECONDS_BETWEEN_TRIES", 0.01)

    async def main():
        async with fleet.open():
            pass

    with pytest.raises(PolicyError, match="killed"):
        asyncio.run(main())
    assert len([row for row in told if row[:2] == ("start", 0)]) == TRIES_AT_FIRST
