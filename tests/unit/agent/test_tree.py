"""The tree of messages: what is shared is there once, what was sampled is trained once, in its context."""

import json
import math
from collections import Counter
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verigym.agent.trajectory import TokenTurn, Trajectory, segments_of
from verigym.agent.tree import CONTEXT, MessageTree, Node, TreeBuilder
from verigym.model.chat.messages import Message
from verigym.model.chat.protocols import Rendered
from verigym.trainer.batching.documents import document_of

NAN = float("nan")


def turn(prompt, sampled, logprobs=None, version=7):
    return TokenTurn(
        prompt_ids=tuple(prompt),
        prompt_roles=("user",) * len(prompt),
        token_ids=tuple(sampled),
        logprobs=tuple(logprobs if logprobs is not None else [-0.5] * len(sampled)),
        policy_version=(version,) * len(sampled),
    )


def said(*texts):
    """Messages of a user and an assistant in turn."""
    return [Message(role="assistant" if place % 2 else "user", content=text) for place, text in enumerate(texts)]


def add(builder, prompt, sampled, conversation=("q",), answer="a", **options):
    after = options.pop("after", None)
    return builder.add(turn(prompt, sampled, **options), said(*conversation), said("", answer)[1], after)


def forked():
    """One question, an answer, and two ways on; then the question with another end."""
    builder = TreeBuilder()
    first = add(builder, [1, 2, 3], [4, 0])
    add(builder, [1, 2, 3, 4, 0, 5], [6, 0], ("q", "a", "left"), "b", after=first)
    add(builder, [1, 2, 3, 4, 0, 7], [8, 0], ("q", "a", "right"), "c", after=first)
    add(builder, [1, 2, 9], [4, 0], ("other",), "d")
    return builder.build()


def test_branches_share_their_beginning():
    tree = forked()
    told = [(node.parent, tuple(node.token_ids), node.trained) for node in tree.nodes]
    assert told == [
        (-1, (1, 2), False),
        (0, (3,), False),
        (1, (4, 0), True),
        (2, (5,), False),
        (3, (6, 0), True),
        (2, (7,), False),
        (5, (8, 0), True),
        (0, (9,), False),
        (7, (4, 0), True),
    ]
    texts = [[message.content for message in tree.messages(branch)] for branch in tree.branches()]
    assert texts == [["q", "a", "left", "b"], ["q", "a", "right", "c"], ["other", "d"]]


def test_a_segment_is_a_branch_and_learns_what_no_earlier_one_does():
    left, right, other = forked().segments()
    assert left.token_ids == (1, 2, 3, 4, 0, 5, 6, 0)
    assert left.loss_mask == (False, False, False, True, True, False, True, True)
    assert right.token_ids == (1, 2, 3, 4, 0, 7, 8, 0)
    assert right.loss_mask == (False,) * 6 + (True, True)
    assert right.roles == (CONTEXT,) * 5 + ("user", "assistant", "assistant")
    assert right.policy_version == (-1,) * 6 + (7, 7)
    assert all(math.isnan(value) for value in right.logprobs[:6])
    assert other.token_ids == (1, 2, 9, 4, 0)
    assert other.roles == (CONTEXT, CONTEXT, "user", "assistant", "assistant")


def test_two_draws_of_the_same_ids_are_two():
    """A node that both shared would train one draw and lose the other."""
    builder = TreeBuilder()
    for _ in range(2):
        add(builder, [1, 2], [3, 0])
    first, second = builder.build().segments()
    assert first.loss_mask == second.loss_mask == (False, False, True, True)


def test_a_context_that_ends_inside_a_turn_cuts_it():
    builder = TreeBuilder()
    add(builder, [1], [2, 3, 4, 0])
    add(builder, [1, 2, 3, 9], [5, 0], ("q", "cut", "more"), "b")
    tree = builder.build()
    assert [(node.parent, tuple(node.token_ids), node.trained) for node in tree.nodes] == [
        (-1, (1,), False),
        (0, (2, 3), True),
        (1, (4, 0), True),
        (1, (9,), False),
        (3, (5, 0), True),
    ]
    whole, cut = tree.segments()
    assert whole.loss_mask == (False, True, True, True, True)
    assert cut.loss_mask == (False, False, False, False, True, True)
    assert [one.content for one in tree.messages(tree.branches()[0])] == ["q", "a"]


def test_what_ends_an_episode_is_observed_once():
    builder = TreeBuilder()
    first = add(builder, [1], [2, 0])
    add(builder, [1, 2, 0, 5], [6, 0], ("q", "a", "r"), "b", after=first)
    builder.observe(first, Rendered(token_ids=(5, 8), roles=("user", "template")), said("r more"))
    tree = builder.build()
    assert [tuple(node.token_ids) for node in tree.nodes] == [(1,), (2, 0), (5,), (6, 0), (8,)]
    assert tree.segments()[1].roles == (*(CONTEXT,) * 4, "template")


def test_a_tree_that_is_none():
    with pytest.raises(ValueError, match="a parent stands before its children"):
        MessageTree((Node(parent=0),))
    with pytest.raises(ValueError, match="they must be one"):
        Node(parent=-1, token_ids=(1,))
    with pytest.raises(ValueError, match="a sampled token has log-probability"):
        add(TreeBuilder(), [1], [2], logprobs=[NAN])


ids = st.integers(0, 3)


@st.composite
def episodes(draw):
    """(turn, number of the turn it is said to go on from or None): prompts that go on from any context there was, from
    the beginning of one, from nothing; with several draws of one prompt."""
    contexts, turns = [()], []
    for _ in range(draw(st.integers(1, 8))):
        place = draw(st.integers(0, len(contexts) - 1))
        base = contexts[place]
        base = base[: draw(st.integers(0, len(base)))] if draw(st.integers(0, 3)) == 0 else base
        prompt = (*base, *draw(st.lists(ids, min_size=0 if base else 1, max_size=4)))
        sampled = draw(st.lists(ids, min_size=1, max_size=3))
        logprobs = draw(st.lists(st.floats(-20, 0), min_size=len(sampled), max_size=len(sampled)))
        turns.append((turn(prompt, sampled, logprobs, len(turns)), place - 1 if place else None))
        contexts.append((*prompt, *sampled))
    return turns


@given(episodes())
def test_every_draw_is_trained_once_in_its_context_and_what_is_shared_is_stored_once(turns):
    builder, handles = TreeBuilder(), []
    for number, (one, after) in enumerate(turns):
        conversation = said(*map(str, one.prompt_ids))
        told = None if after is None else handles[after]
        handles.append(builder.add(one, conversation, Message(role="assistant", content=f"t{number}"), told))
    tree = builder.build()
    found = Counter(
        (repr(list(segment.token_ids[:place])), segment.token_ids[place], segment.logprobs[place], version)
        for segment in tree.segments()
        for place, version in enumerate(segment.policy_version)
        if segment.loss_mask[place]
    )
    assert found == Counter(
        (repr([*one.prompt_ids, *one.token_ids[:place]]), token, one.logprobs[place], one.policy_version[place])
        for one, _ in turns
        for place, token in enumerate(one.token_ids)
    )
    children: dict[int, list[int]] = {}
    for node in tree.nodes:
        if node.token_ids and not node.trained:
            children.setdefault(node.parent, []).append(node.token_ids[0])
    assert all(len(set(firsts)) == len(firsts) for firsts in children.values())
    leaves = [tree.messages(branch)[-1].content for branch in tree.branches()]
    assert len(set(leaves)) == len(leaves)
    again = MessageTree.from_json(json.loads(json.dumps(tree.to_json(), allow_nan=False)))
    assert again == tree
    assert "".join(tree.json_pieces()) == json.dumps(tree.to_json())


def test_of_an_episode_without_branches_both_ways_make_the_same_segments():
    turns = [turn([1, 2], [3, 0]), turn([1, 2, 3, 0, 8], [4]), turn([1, 2, 3, 0, 8, 4], [5, 0])]
    builder, after = TreeBuilder(), None
    for one in turns:
        after = builder.add(one, (), Message(role="assistant", content=""), after)
    assert builder.build().segments() == segments_of(turns)


def test_a_trajectory_with_a_tree_stores_the_tree_alone():
    tree = forked()
    before = Trajectory(task_id="t", family="f", ending="answered", segments=tree.segments(), tree=tree, reward=1.0)
    row = before.to_json()
    assert row["segments"] == ()
    text = json.dumps(row, allow_nan=False)
    assert "".join(before.json_pieces()) == text
    after = Trajectory.from_json(json.loads(text))
    assert (after.segments, after.tree, after.num_sampled) == (before.segments, tree, 8)


def test_a_file_from_before_trees_is_read():
    segments = segments_of([turn([1], [2, 0])])
    row = Trajectory(task_id="t", family="f", ending="answered", segments=segments).to_json()
    assert "tree" not in row
    assert Trajectory.from_json(json.loads(json.dumps(row))).segments == segments


P, Q, R, LEFT, RIGHT = range(5)
CHOICES = (LEFT, RIGHT)


def reward_of(first, summary, sub_agent, last):
    """Something that no choice decides alone."""
    return 1.0 * (first == summary) + 2.0 * (sub_agent != last) - 0.5 * (summary == LEFT) * (last == LEFT)


def likelihoods(theta, prefix):
    """[2] nats of the two choices after a context; each context has its own numbers."""
    place = sum((token + 1) * 6**power for power, token in enumerate(prefix)) % len(theta)
    return torch.log_softmax(theta[place], dim=0)


def episode(theta, first, summary, sub_agent, last):
    """A first turn, a summary of it, a sub-agent that begins with the same words, and a turn that sees the summary
    alone: a fork and a compaction."""
    builder = TreeBuilder()
    total = torch.zeros(())

    def draw(prompt, choice):
        nonlocal total
        logprob = likelihoods(theta, prompt)[CHOICES.index(choice)]
        total = total + logprob
        return add(builder, prompt, [choice], (str(prompt),), str(choice), logprobs=[logprob.item()])

    draw([P], first)
    draw([P, first, Q], summary)
    draw([P, first, R], sub_agent)
    draw([Q, summary, sub_agent], last)
    return builder.build(), total


def test_the_credit_of_branches_is_the_gradient_of_the_expected_reward():
    """The rule: each sampled token carries its episode's advantage, once, in the context it was sampled in. Averaged
    over all episodes it is the derivative of the expected reward, found by writing down all of them."""
    torch.manual_seed(0)
    theta = torch.randn(1301, 2, dtype=torch.float64, requires_grad=True)
    expected = torch.zeros(())
    estimate = torch.zeros_like(theta)
    for choices in product(CHOICES, repeat=4):
        tree, total = episode(theta, *choices)
        reward = reward_of(*choices)
        expected = expected + total.exp() * reward
        loss: torch.Tensor = torch.zeros(())
        for segment in tree.segments():
            document = document_of(segment, sampled=True, advantage=reward)
            assert document is not None
            for place in document.loss_mask.nonzero()[0]:
                prefix = document.token_ids[: place + 1].tolist()
                chosen = CHOICES.index(int(document.targets[place]))
                loss = loss + float(document.advantage) * likelihoods(theta, prefix)[chosen]
        (gradient,) = torch.autograd.grad(loss, theta, retain_graph=True)
        estimate += total.exp().item() * gradient
    (exact,) = torch.autograd.grad(expected, theta)
    assert exact.abs().max() > 0.05
    torch.testing.assert_close(estimate, exact, rtol=1e-6, atol=1e-9)
