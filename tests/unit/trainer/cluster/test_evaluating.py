"""Episodes of an evaluation by workers: the verdicts of one process, also where workers are lost."""

import asyncio
import pickle
import random

import pytest

from verigym.agent.loop import Budget, rollout
from verigym.agent.policy import ScriptedPolicy, play
from verigym.envs.core import ToolEnv
from verigym.envs.task import Task
from verigym.errors import VerigymError
from verigym.evals.run import evaluate
from verigym.model.chat.messages import Message
from verigym.model.chat.sampling import Sampling
from verigym.model.checkpoint import save_checkpoint
from verigym.model.tokenizer import train_tokenizer
from verigym.rewards.score import Score
from verigym.trainer.cluster.evaluating import ClusterEpisodes, Evaluation
from verigym.trainer.cluster.workers import WorkerLost, Workers
from verigym.trainer.policies import build_policy


class Patches(ToolEnv):
    """An episode's work is the patch that its last message says."""

    family = "swe"

    def prompt(self, task):
        return task.prompt

    async def start(self, task):
        self.patch = None

    def gold(self, task):
        return [Message(role="assistant", content=f"diff of {task.id}")]

    async def score(self, task, submission):
        self.patch = submission
        passed = task.metadata["good"]
        return Score(value=float(passed), passed=passed)


def make_env(task):
    return Patches()


class Line:
    """The controller's end of the line to a worker of this process, which now and then is cut."""

    def __init__(self, rng, faults, setup):
        self.rng, self.faults, self.runner = rng, faults, setup.runner()

    async def ready(self):
        pass

    async def engines(self, addresses):
        await self.runner.engines(addresses)

    async def run(self, request):
        if self.rng.random() < self.faults:
            raise WorkerLost("its line is cut")
        answer = await self.runner.run(pickle.loads(pickle.dumps(request)))
        if self.rng.random() < self.faults:
            raise WorkerLost("its line is cut")
        return answer

    def cancel(self, assignment):
        pass

    def end(self):
        pass


TASKS = [Task(id=str(n), family="swe", prompt=f"task {n}", metadata={"good": n % 3 > 0}) for n in range(12)]


async def evaluated(folder, act):
    options = {"samples": 2, "budget": Budget(turns=2), "sampling": Sampling(seed=1), "out": folder, "act": act}
    gold = lambda env, task: ScriptedPolicy(play(env.gold(task)))  # noqa: E731
    verdicts = await evaluate(TASKS, make_env, gold, settings={"policy": "gold"}, **options)
    return [(one.task_id, one.index, one.passed) for one in verdicts]


@pytest.mark.parametrize("faults", [0.0, 0.15])
def test_workers_say_what_one_process_says(tmp_path, faults):
    rng = random.Random(3)
    setup = Evaluation(make_env=make_env, policy="gold", act=rollout)

    async def there():
        workers = Workers(lambda place, incarnation: Line(rng, faults, setup), 3, most_inside=2, look_seconds=0.01)
        episodes = ClusterEpisodes(workers, None)
        try:
            return await evaluated(tmp_path / "there", episodes), workers
        finally:
            await episodes.aclose()

    expected = asyncio.run(evaluated(tmp_path / "here", rollout))
    found, workers = asyncio.run(there())
    assert found == expected
    assert {passed for _, _, passed in expected} == {True, False}
    assert bool(workers.ledger.counts["asked_again"]) == bool(faults)
    # The patches too, whole, though no environment here has been acted in.
    here, also = ((tmp_path / name / "preds.jsonl").read_text() for name in ("here", "there"))
    assert "diff of 7" in here
    assert here == also


def test_an_engine_elsewhere_is_known_without_being_opened(tmp_path, make_decoder):
    tokenizer = train_tokenizer(["counting one two three " * 8], 320)
    decoder = make_decoder(vocab_size=tokenizer.vocab_size, max_position_embeddings=64)
    save_checkpoint(tmp_path / "model", decoder, tokenizer)
    spec = f"engine:{tmp_path / 'model'}"
    opened, known = build_policy(spec), build_policy(spec, elsewhere=True)
    same = ("name", "env_kwargs", "identity", "max_context", "generation")
    assert [getattr(known, name) for name in same] == [getattr(opened, name) for name in same]
    assert known.policy_for(None, None) is None
    (tmp_path / "model" / "tokenizer.json").unlink()
    with pytest.raises(VerigymError, match="tokenizer"):
        build_policy(spec, elsewhere=True)
