"""From what was scored to the advantages of an episode's tokens, where an algorithm has them token by token."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from ..batching.documents import Document
from ..objective.advantages import generalized_advantages, whiten
from ..objective.losses import kl_estimate
from ..recipe.algorithms import PPOConfig, ReinforcePPConfig, RLConfig


def trained_column(document: Document, name: str) -> np.ndarray:
    """[N] float64, a column at the trained tokens."""
    return document.columns[name][document.loss_mask].astype(np.float64)


def mismatch(documents: Sequence[Sequence[Document]]) -> dict[str, float]:
    """How far the trainer's log-probabilities are from the sampler's, where they were measured."""
    gaps = [
        trained_column(one, "anchor_logprobs") - one.old_logprobs[one.loss_mask]
        for mine in documents
        for one in mine
        if "anchor_logprobs" in one.columns
    ]
    if not gaps:
        return {}
    gap = np.concatenate(gaps).clip(-20.0, 20.0)
    weight = np.exp(gap)
    return {
        "trainer/mismatch_kl/mean": float((np.expm1(gap) - gap).mean()),
        "trainer/mismatch/max": float(np.abs(gap).max()),
        "trainer/sampler_effective_sample_size/share": float(weight.sum() ** 2 / (len(weight) * (weight**2).sum())),
    }


def kl_costs(documents: Sequence[Document], config: RLConfig) -> list[np.ndarray]:
    """[N] for each document: what the distance to the reference takes from each trained token's reward."""
    costs = []
    for one in documents:
        if "reference_logprobs" not in one.columns:
            costs.append(np.zeros(int(one.loss_mask.sum())))
            continue
        sampled = torch.from_numpy(one.old_logprobs[one.loss_mask].astype(np.float64))
        reference = torch.from_numpy(trained_column(one, "reference_logprobs"))
        costs.append(config.kl.coef * kl_estimate(sampled, reference, config.kl.estimator).numpy())
    return costs


def _in_reward(documents: Sequence[Document], config: RLConfig) -> np.ndarray:
    """[T] costs of an episode's trained tokens, over all its documents; zeros where KL is not in the reward."""
    if config.kl.coef and config.kl.place == "reward":
        return np.concatenate(kl_costs(documents, config))
    return np.zeros(sum(int(one.loss_mask.sum()) for one in documents))


def spread(documents: Sequence[Document], values: np.ndarray) -> list[np.ndarray]:
    """Numbers of an episode's trained tokens as an [L] column of each document, 0 elsewhere."""
    columns, start = [], 0
    for one in documents:
        column = np.zeros(len(one), np.float32)
        count = int(one.loss_mask.sum())
        column[one.loss_mask] = values[start : start + count]
        columns.append(column)
        start += count
    return columns


def costs_to_go(documents: list[list[Document]], kept: Sequence[int], config: ReinforcePPConfig) -> None:
    """REINFORCE++: the reward less the costs still to come, normalized over all tokens of the step."""
    plain = []
    for index in kept:
        costs = _in_reward(documents[index], config)
        plain.append(advantages_at(documents[index]) - np.cumsum(costs[::-1])[::-1])
    for index, values in zip(kept, whiten(plain) if plain else [], strict=True):
        columns = spread(documents[index], values)
        documents[index] = [replace(one, advantage=c) for one, c in zip(documents[index], columns, strict=True)]


def mean_of(credits: np.ndarray) -> float:
    return float(credits.mean()) if len(credits) else 0.0


def estimate(documents: list[list[Document]], kept: Sequence[int], config: PPOConfig) -> dict[str, float]:
    """PPO: generalized advantages over each episode's tokens, returns for the critic, and how well it predicts."""
    advantages, returns, values = [], [], []
    for index in kept:
        mine = documents[index]
        rewards = -_in_reward(mine, config)
        if config.credit == "turn":
            rewards += advantages_at(mine)
        else:
            rewards[-1] += float(mine[0].advantage)
        old = np.concatenate([trained_column(one, "old_values") for one in mine])
        advantage, target = generalized_advantages(rewards, old, gamma=config.gamma, gae_lambda=config.gae_lambda)
        advantages.append(advantage)
        returns.append(target)
        values.append(old)
    if not kept:
        return {}
    evened = whiten(advantages) if config.whiten else advantages
    for index, advantage, target in zip(kept, evened, returns, strict=True):
        columns = zip(documents[index], spread(documents[index], advantage), spread(documents[index], target))
        documents[index] = [replace(one, advantage=a, columns={**one.columns, "returns": r}) for one, a, r in columns]
    target, old = np.concatenate(returns), np.concatenate(values)
    variance = float(target.var())
    explained = 1.0 - float((target - old).var()) / variance if variance > 1e-12 else math.nan
    return {
        "trainer/explained_variance/mean": explained,
        "trainer/value/mean": float(old.mean()),
        "trainer/return/mean": float(target.mean()),
    }


def advantages_at(documents: Sequence[Document]) -> np.ndarray:
    """[T] float64 of an episode's trained tokens: each one's advantage."""
    columns = [np.broadcast_to(one.advantage, len(one))[one.loss_mask] for one in documents]
    return np.concatenate(columns).astype(np.float64)
