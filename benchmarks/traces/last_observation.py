"""Does a model learn what an environment answers last? Midtraining on whole episodes, and on cut ones.

    python -P benchmarks/traces/last_observation.py [--updates 150] [--seeds 0 1 2] [--out FILE.json]

Episodes of one small environment: a policy says words, each is heard, and most episodes end with a submission, which
is answered in words of its own; others run out of turns. Both arms have the same tokenizer, weights to begin with,
documents in number and order of drawing, updates and tokens an update; "cut" has documents as they were made before the
last observation was part of them: up to the last token of the assistant. Told is how many observations of held-out
episodes (other sequences of words) have each token as the likeliest, given all before it: those in the middle, the
answers to a submission, and the last ones of episodes that ran out of turns, which are like those in the middle.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

WORDS = ("ash", "birch", "cedar", "elm", "fir", "oak", "pine", "yew")
SUBMITTED = 2 / 3
"""Share of episodes that end with a submission; the others run out of turns."""
FIELDS = ("token_ids", "loss_mask", "logprobs", "policy_version", "roles")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=400)
    parser.add_argument("--held-out", type=int, default=90)
    parser.add_argument("--batch-tokens", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    report: dict[str, Any] = {"updates": args.updates, "cores": os.cpu_count(), "torch": torch.__version__, "seeds": {}}
    for seed in args.seeds:
        learned, held_out, vocab_size = episodes(seed, args.episodes, args.held_out)
        found = {}
        for arm, documents in (("whole", learned), ("cut", [cut(one) for one in learned])):
            found[arm] = trained(documents, held_out, vocab_size, seed, args)
            print(seed, arm, json.dumps(found[arm]), flush=True)
        report["seeds"][seed] = found
        if args.out is not None:
            args.out.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def episodes(seed: int, num: int, num_held_out: int) -> tuple[list[Any], list[Any], int]:
    """(episodes to learn, held-out ones of other sequences of words, size of the vocabulary)."""
    from verigym.agent.demonstrations import demonstrate, texts_of, tokenize
    from verigym.agent.policy import play
    from verigym.envs.core import Submission, ToolEnv
    from verigym.envs.task import Task
    from verigym.envs.tools.spec import tool
    from verigym.model.chat.cwm import CwmParser, CwmRenderer
    from verigym.model.chat.messages import Message, ToolCall
    from verigym.model.tokenizer import train_tokenizer
    from verigym.rewards.score import Score, verdict

    class Hears(ToolEnv):
        family = "hears"

        def score(self, task: Task, submission: Any) -> Score:
            return verdict(True)

        @tool
        def say(self, word: str) -> str:
            """Say a word.

            Args:
                word: which.
            """
            return f"heard {word}"

        @tool
        def submit(self, word: str) -> Submission:
            """End with a word.

            Args:
                word: which.
            """
            return Submission(value="", message=f"the end, and {word} it is")

    rng, known, played = random.Random(seed), set(), []
    while len(played) < num + num_held_out:
        words = tuple(rng.choices(WORDS, k=rng.randint(2, 4)))
        if words in known:
            continue
        known.add(words)
        calls = [ToolCall(id="", name="say", arguments={"word": word}) for word in words]
        if rng.random() < SUBMITTED:
            calls[-1] = replace(calls[-1], name="submit")
        turns = [Message(role="assistant", content="", calls=(call,)) for call in calls]
        task = Task(id=" ".join(words), family="hears", prompt="Speak.")
        played.append(asyncio.run(demonstrate(Hears(), play(turns), task, max_turns=len(turns))))
    parser, tools = CwmParser(), Hears().tool_specs
    tokenizer = train_tokenizer((text for one in played[:num] for text in texts_of(one, tools, parser)), 400)
    renderer = CwmRenderer(tokenizer)
    made = [tokenize(one, tools, renderer, parser) for one in played]
    return made[:num], made[num:], tokenizer.vocab_size


def cut(episode: Any) -> Any:
    """The episode up to the last token that the assistant wrote."""
    (segment,) = episode.segments
    end = 1 + max(at for at, written in enumerate(segment.loss_mask) if written)
    return replace(episode, segments=(replace(segment, **{name: getattr(segment, name)[:end] for name in FIELDS}),))


def trained(learned: Sequence[Any], held_out: Sequence[Any], vocab_size: int, seed: int, args: Any) -> dict[str, Any]:
    from verigym.model.config import preset
    from verigym.model.decoder import Decoder
    from verigym.trainer.loops.midtrain import Midtrain, trajectory_documents
    from verigym.trainer.recipe.config import MidtrainConfig, OptimConfig

    small = {"hidden_size": 64, "intermediate_size": 192, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1}
    shape = preset("cwm-tiny", vocab_size=vocab_size, layer_types=("full_attention",) * 2, **small)
    decoder = Decoder(shape, seed=seed)
    config = MidtrainConfig(
        max_steps=args.updates, batch_tokens=args.batch_tokens, microbatch_tokens=args.batch_tokens, patience=0
    )
    optim = OptimConfig(lr=4e-3, warmup_steps=10, matrices="muon", muon_lr=2e-3)
    documents = {"episodes": trajectory_documents(learned)}
    began = time.process_time()
    training = Midtrain(decoder, documents, {"episodes": 1.0}, config=config, optim=optim, seed=seed)
    training.run()
    found = {name: [sum(verdicts), len(verdicts)] for name, verdicts in right(decoder, held_out).items()}
    return {**found, "updates": training.num_steps, "processor_s": round(time.process_time() - began, 1)}


def right(decoder: Any, held_out: Sequence[Any]) -> dict[str, list[bool]]:
    """Which observations are right in every token: in the middle, answers to a submission, last ones of other ends."""
    import torch

    from verigym.model.attention import Documents

    found: dict[str, list[bool]] = {"middle": [], "submission": [], "turn_limit": []}
    for episode in held_out:
        (segment,) = episode.segments
        ids = torch.tensor(list(segment.token_ids))
        with torch.no_grad():
            told = decoder.logits(decoder(ids, Documents.from_lengths([len(ids)]))).argmax(-1)
        spans = [
            [at for at, _ in run]
            for written, run in groupby(enumerate(segment.loss_mask), lambda one: bool(one[1]))
            if not written
        ]
        verdicts = [all(int(told[at - 1]) == int(ids[at]) for at in span) for span in spans[1:]]
        found["middle"] += verdicts[:-1]
        found["turn_limit" if episode.ending == "turn_limit" else "submission"].append(verdicts[-1])
    return found


if __name__ == "__main__":
    sys.exit(main())
