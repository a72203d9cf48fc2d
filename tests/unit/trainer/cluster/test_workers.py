"""Episode workers that die, hang, answer twice or too late: every prompt is trained once, with the same episodes."""

import asyncio
import random
import socket
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from verigym.agent.loop import Budget, rollout
from verigym.agent.policy import TokenPolicy
from verigym.agent.seeds import SeededPolicy
from verigym.envs.task import Task
from verigym.errors import PolicyError, TaskError
from verigym.model.chat.sampling import Completion, Sampling
from verigym.trainer.cluster.elsewhere import Elsewhere
from verigym.trainer.cluster.ledger import Answer, EpisodeLedger
from verigym.trainer.cluster.remote import Address, Reach, RemoteEngines
from verigym.trainer.cluster.workers import WorkerLost, Workers
from verigym.trainer.loops.asynchronous import AsyncRL
from verigym.trainer.recipe.algorithms import AsyncConfig, GRPOConfig
from verigym.trainer.recipe.config import OptimConfig
from verigym.trainer.sampling.rollouts import EpisodePlan, TaskStream

NUM_TASKS = 6


class Engine:
    """Says 9 or 4 by the request's seed, whoever asks and however often."""

    max_context = 48
    policy_version = 0

    async def generate(self, prompt_ids, sampling, stop_token_ids):
        version = self.policy_version
        await asyncio.sleep(0.002)
        first = random.Random(sampling.seed).choice((9, 4))
        return Completion(
            token_ids=(first, 0), logprobs=(-2.7, -2.7), policy_version=(version, version), finish_reason="stop"
        )

    def update_weights(self, version, load=None, *, on_weight_update=None):
        self.policy_version = version


class FaultyWorker:
    """Runs episodes in this process, and now and then does what machines do."""

    def __init__(self, rng, policy, make_env, faults, ran):
        self.rng, self.policy, self.make_env, self.faults, self.ran = rng, policy, make_env, faults, ran
        self.dead = self.hangs = self.ended = False

    def _lives(self):
        if self.dead or self.ended:
            raise WorkerLost("it is dead")

    async def ready(self):
        await asyncio.sleep(0.001)
        if self.rng.random() < self.faults / 2:
            self.dead = True
        self._lives()

    async def engines(self, addresses):
        if self.hangs:
            await asyncio.sleep(3600)
        self._lives()

    async def run(self, request):
        self._lives()
        fate = self.rng.random()
        if fate < self.faults:
            self.dead = True
            raise WorkerLost("it died at once")
        if fate < 1.5 * self.faults:
            self.hangs = True
        if self.hangs:
            await asyncio.sleep(3600)
        self.ran[request.place] += 1
        options = {"budget": request.budget, "sampling": request.sampling, "group_id": request.group_id}
        found = await rollout(self.make_env(), SeededPolicy(self.policy, *request.place), request.task, **options)
        if fate < 2 * self.faults:
            self.dead = True
            raise WorkerLost("it died with the answer on its lips")
        assignment = request.assignment
        if fate < 2.2 * self.faults:  # of another incarnation
            assignment = replace(assignment, incarnation=assignment.incarnation - 1)
        return Answer(assignment=assignment, result=found)

    def cancel(self, assignment):
        pass

    def end(self):
        self.ended = True


def make(make_decoder, words, seed, faults, max_lag=1):
    engine, rng, ran = Engine(), random.Random(seed), Counter()
    policy = TokenPolicy(engine, words.renderer(), words.parser())

    def workers():
        return Workers(
            lambda place, incarnation: FaultyWorker(rng, policy, words.env, faults, ran),
            3,
            most_inside=4,
            look_seconds=0.01,
            most_asked=500,
        )

    def trainer(act):
        plan = EpisodePlan(make_env=words.env, budget=Budget(turns=2, tokens=64, seconds=30), turn_tokens=4, act=act)
        return AsyncRL(
            make_decoder(vocab_size=16, max_position_embeddings=64),
            engine,
            policy,
            lambda task: plan,
            config=GRPOConfig(num_tasks=2, group_size=3, microbatch_tokens=256, concurrency=12, max_useless_steps=99),
            asynchronous=AsyncConfig(max_lag=max_lag),
            optim=OptimConfig(lr=1e-3),
            tasks=TaskStream([Task(id=str(n), family="guess", prompt=f"{n} please") for n in range(NUM_TASKS)]),
            seed=5,
        )

    return workers, trainer, ran


def trained(make_decoder, words, seed, faults, stops=(), steps=3):
    """((group, its episodes' tokens) of every step, the ledgers' counts, the trainer) through stops and resumes."""
    make_workers, make_trainer, ran = make(make_decoder, words, seed, faults)
    found, counts, state = [], Counter(), None
    for end in sorted({*stops, steps}):

        async def sitting(end=end, state=state):
            workers = make_workers()
            await workers.open([])
            trainer = make_trainer(Elsewhere(workers, "guess", rollout))
            if state is not None:
                trainer.load_state_dict(state)
            try:
                await asyncio.wait_for(trainer.run(end, on_step=found.append), 60)
            finally:
                await workers.aclose()
            assert len(workers.ledger) == 0
            counts.update(workers.ledger.counts)
            return trainer

        trainer = asyncio.run(sitting())
        state = trainer.state_dict()
    groups = [
        (one.group_id, tuple(tuple(segment.token_ids) for segment in one.segments))
        for step in found
        for one in step.trajectories
    ]
    return groups, counts, trainer, ran


@given(
    seed=st.integers(0, 2**31),
    faults=st.sampled_from([0.0, 0.1, 0.25]),
    stops=st.lists(st.integers(1, 2), max_size=2),
)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_every_prompt_of_an_epoch_is_trained_once_whatever_dies(make_decoder, words, seed, faults, stops):
    expected, *_ = trained(make_decoder, words, 0, 0.0)
    groups, counts, trainer, ran = trained(make_decoder, words, seed, faults, stops)
    # The prompts and, as their seeds are those of their places, the very episodes of a run in which nothing dies.
    assert sorted(groups) == sorted(expected)
    assert Counter(group for group, _ in groups) == {f"{n}/{task}": 3 for n, task in enumerate(order(groups))}
    assert sorted(order(groups)) == [str(n) for n in range(NUM_TASKS)]
    assert trainer.counts["trained"] == NUM_TASKS
    assert not any(name.startswith("dropped") for name in trainer.counts)
    assert counts["answered"] >= 3 * NUM_TASKS
    assert faults or not counts["asked_again"]
    assert words.env.open_count == 0


def order(groups):
    return [group.split("/")[1] for group in sorted({group for group, _ in groups}, key=lambda g: int(g.split("/")[0]))]


def test_faults_are_met_and_counted(make_decoder, words):
    """The property would hold of workers that never fail."""
    totals = Counter()
    for seed in range(6):
        totals += trained(make_decoder, words, seed, 0.25)[1]
    assert totals["asked_again"] > 0
    assert totals["discarded"] > 0


def test_an_episode_that_kills_whoever_runs_it_has_failed_and_no_task_is_lost(words):
    class Deadly(FaultyWorker):
        async def run(self, request):
            self.dead = True
            raise WorkerLost("out of memory")

    async def main():
        workers = Workers(
            lambda place, incarnation: Deadly(random.Random(0), None, words.env, 0.0, Counter()), 2, look_seconds=0.01
        )
        await workers.open([])
        act = Elsewhere(workers, "guess", rollout)
        policy = SeededPolicy(TokenPolicy(Engine(), words.renderer(), words.parser()), 0)
        options = {"budget": Budget(seconds=5), "sampling": Sampling(max_tokens=4), "group_id": "g"}
        found = await act(words.env(), policy, words.task, **options)
        await workers.aclose()
        return found, workers

    found, workers = asyncio.run(main())
    assert (found.ending, found.reward, found.group_id) == ("sandbox_failure", None, "g")
    assert "lost 5 times" in found.detail
    assert workers.ledger.counts["dropped"] == 1


def test_what_an_episode_refuses_reaches_whoever_asked(words):
    class Refusing(FaultyWorker):
        async def run(self, request):
            raise TaskError("no such task")

    async def main():
        workers = Workers(
            lambda place, incarnation: Refusing(random.Random(0), None, words.env, 0.0, Counter()), 1, look_seconds=0.01
        )
        await workers.open([])
        policy = SeededPolicy(TokenPolicy(Engine(), words.renderer(), words.parser()), 0)
        try:
            with pytest.raises(TaskError, match="no such task"):
                await Elsewhere(workers, "guess", rollout)(
                    words.env(), policy, words.task, budget=Budget(), sampling=Sampling(max_tokens=4)
                )
        finally:
            await workers.aclose()

    asyncio.run(main())


@given(
    st.lists(
        st.tuples(st.sampled_from(["open", "assign", "lose", "take", "late", "drop"]), st.integers(0, 5)),
        min_size=30,
        max_size=80,
    )
)
@settings(max_examples=200)
def test_an_answer_counts_once_and_only_from_whom_it_was_last_asked(actions):
    ledger, asked, ended = EpisodeLedger(), {}, Counter()
    tickets, history = [], []
    for action, number in actions:
        if action == "open":
            tickets.append(ledger.open())
        elif not tickets:
            continue
        ticket = tickets[number % len(tickets)] if tickets else 0
        is_open = ticket not in ended
        if action == "assign" and is_open:
            asked[ticket] = ledger.assign(ticket, number % 2, number // 2)
            history.append(asked[ticket])
        elif action == "lose":
            for lost in ledger.lose(number % 2, number // 2):
                asked.pop(lost)
        elif action == "take" and ticket in asked:
            assert ledger.take(asked.pop(ticket))
            ended[ticket] += 1
        elif action == "late" and history:
            old = history[number % len(history)]
            counts = ledger.take(old)
            assert counts == (asked.get(old.ticket) == old)
            if counts:
                asked.pop(old.ticket)
                ended[old.ticket] += 1
        elif action == "drop" and is_open:
            ledger.drop(ticket)
            asked.pop(ticket, None)
            ended[ticket] += 1
    assert set(ended.values()) <= {1}
    assert len(ledger) == len(tickets) - len(ended)


def test_a_worker_is_told_where_engines_are_without_waiting_for_them(tmp_path):
    """An engine that is given new weights answers nobody for minutes; whoever said where it is must not be kept."""
    listener = socket.create_server(("127.0.0.1", 0))  # takes connections, and answers none
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    reach = Reach(format=tmp_path, num_engines=2, max_context=64, request_seconds=0.3)

    async def main():
        engines = RemoteEngines(reach)
        addresses = [Address(place=0, url=url, key=None)]
        engines.change(addresses)
        connecting = engines._servers[0].connecting
        engines.change(addresses)  # it is being connected to already
        assert engines._servers[0].connecting is connecting
        engines.change([])
        await asyncio.sleep(0)
        assert connecting.cancelled() or connecting.cancelling()
        with pytest.raises(PolicyError, match=r"none of 2 engines has answered for 0\.3 s"):
            await engines.generate([3], Sampling(max_tokens=1), ())

    asyncio.run(main())
    listener.close()
