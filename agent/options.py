"""Options that the commands share: which policy, what an episode may spend, which sandbox."""

import argparse
from typing import TYPE_CHECKING

from ..envs.sandbox.choose import sandbox_name
from .sources import SPECS

if TYPE_CHECKING:
    from ..model.chat.sampling import Sampling
    from .harness.open import Rollout
    from .loop import Budget
    from .sources import PolicySource
    from .speakers import Seat


def add_policy_option(parser: argparse.ArgumentParser) -> None:
    """--policy SPEC, and of an engine --attention and --chat-template."""
    parser.add_argument("--policy", default="gold", metavar="SPEC", help=f"{SPECS} (default: gold)")
    parser.add_argument(
        "--attention",
        choices=("auto", "triton", "sdpa", "reference"),
        default="auto",
        help="what attention of engine:CHECKPOINT runs on (default: auto, the kernels on CUDA)",
    )
    parser.add_argument(
        "--chat-template",
        metavar="TEMPLATE",
        help="of engine: and tokens:CHECKPOINT, in place of the tokenizer's own, or where it has none: chatml, plain "
        "(questions and answers) or a Jinja file",
    )


def add_agent_options(parser: argparse.ArgumentParser) -> None:
    """--agent SPEC, and whose sampling settings count."""
    parser.add_argument(
        "--agent",
        default="verigym",
        metavar="SPEC",
        help="who acts with the policy: verigym (our own loop), mini-swe-agent[:CONFIG], "
        "mini-swe-agent-inside[:CONFIG] as a process of the sandbox, command:COMMAND in the sandbox, beside:COMMAND on "
        "this machine, or MODULE:NAME (default: verigym)",
    )
    parser.add_argument(
        "--agent-sampling",
        action="store_true",
        help="the agent's own temperature and the like count where it asks for any (default: those given here)",
    )


def agent_of(args: argparse.Namespace) -> "Rollout":
    """What runs an episode. Raises ConfigError where there is no such agent."""
    from .harness.open import AgentSettings, open_agent

    return open_agent(args.agent, AgentSettings(override=not args.agent_sampling))


def agent_settings(args: argparse.Namespace) -> dict[str, object]:
    """What of the agent makes two runs the same; nothing for our own loop."""
    return {} if args.agent == "verigym" else {"agent": args.agent, "agent_sampling": args.agent_sampling}


def add_episode_options(parser: argparse.ArgumentParser) -> None:
    """How turns are drawn and what an episode may spend."""
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help="0 is greedy (default: 1.0)")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P", help="default: 1.0, the whole distribution")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws (default: 0)")
    parser.add_argument("--max-turns", type=int, default=32, metavar="N", help="assistant turns (default: 32)")
    parser.add_argument("--max-tokens", type=int, default=1024, metavar="N", help="tokens of a turn (default: 1024)")
    parser.add_argument("--timeout", type=float, default=900.0, metavar="S", help="seconds an episode (default: 900)")


def add_sandbox_option(parser: argparse.ArgumentParser) -> None:
    """--sandbox."""
    parser.add_argument(
        "--sandbox",
        type=sandbox_name,
        metavar="NAME",
        default="auto",
        help="where code runs: auto, docker, podman, oci (images without an engine), local, unsafe (isolates nothing), "
        "or an installed package's (default: auto, the best that works here)",
    )


def add_test_timeout_option(parser: argparse.ArgumentParser) -> None:
    """--test-timeout; without it the suite's own."""
    parser.add_argument(
        "--test-timeout",
        type=float,
        metavar="S",
        help="seconds of one run of a task's hidden tests (default: the suite's, 1800 for SWE suites)",
    )


def add_model_option(parser: argparse.ArgumentParser) -> None:
    """--model, for the seats of other speakers."""
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME=SPEC",
        help='another speaker that the environment asks by name: a user, an opponent, a judge; "self" for the policy',
    )


def seats_of(args: argparse.Namespace) -> "tuple[dict[str, Seat], list[PolicySource]]":
    """(name -> who has the seat, the sources to close).

    Raises:
        ConfigError: no NAME=SPEC, a name twice, or a SPEC that cannot have a seat.
    """
    from ..errors import ConfigError
    from .speakers import Seat

    seats: dict[str, Seat] = {}
    sources = []
    for given in args.model:
        name, _, spec = given.partition("=")
        if not name or not spec:
            raise ConfigError(f"--model {given!r} is not NAME=SPEC, such as user=openai:http://localhost:8000/v1#m")
        if name in seats:
            raise ConfigError(f"--model names {name!r} twice; one speaker has a seat")
        if spec == "self":
            seats[name] = Seat()
            continue
        sources.append(args.build_policy(spec, chat_template=None))  # that is of --policy
        seats[name] = Seat(policy=sources[-1].shared(), spec=spec)
    return seats, sources


def add_untrusted_option(parser: argparse.ArgumentParser) -> None:
    """--untrusted; without it the environment's own rule, "fail"."""
    parser.add_argument(
        "--untrusted",
        choices=("fail", "accept", "drop"),
        help="what a patch is worth whose tests all pass while nothing speaks for some that decide: 0 (default), 1, "
        "or no sample at all",
    )


def budget_of(args: argparse.Namespace) -> "Budget":
    """The budget that the options state.

    Raises:
        ConfigError: a turn count or a time that is not positive.
    """
    from ..errors import ConfigError
    from .loop import Budget

    if args.max_turns < 1 or not args.timeout > 0:
        raise ConfigError(f"--max-turns is {args.max_turns} and --timeout {args.timeout}; both must be positive")
    return Budget(turns=args.max_turns, seconds=args.timeout)


def sampling_of(args: argparse.Namespace) -> "Sampling":
    """The sampling settings that the options state.

    Raises:
        ConfigError: a value outside its range.
    """
    from ..errors import ConfigError
    from ..model.chat.sampling import Sampling

    try:
        return Sampling(max_tokens=args.max_tokens, temperature=args.temperature, top_p=args.top_p, seed=args.seed)
    except ValueError as error:
        raise ConfigError(str(error)) from None
