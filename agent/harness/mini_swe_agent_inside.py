"""mini-swe-agent as a process of the environment's sandbox, where its command ``mini`` must be installed."""

import json
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from ...errors import ConfigError
from ...model.chat.messages import Message
from .command import CommandHarness
from .mini_swe_agent import HAND_IN
from .spec import Done, Stage

FOLDER = "/opt/mini-swe-agent"
"""An environment with ``mini`` in it, for images whose PATH has none."""
CONFIG, ENDED = "/tmp/verigym-mini.yaml", "/tmp/verigym-mini.json"
MOST_BYTES = 64 << 20
SETTINGS = (
    "MSWEA_CONFIGURED=1 MSWEA_SILENT_STARTUP=1 MSWEA_COST_TRACKING=ignore_errors MSWEA_GLOBAL_CONFIG_DIR=/tmp/mini"
)
# Without, litellm asks the network for its prices; a process in the sandbox would wait for that in vain.
COMMAND = f"""{SETTINGS} LITELLM_LOCAL_MODEL_COST_MAP=True PATH="$PATH:{FOLDER}/bin" mini --agent-class default \
--cost-limit 0 --model "openai/$VERIGYM_MODEL" --task "$(cat "$VERIGYM_PROMPT")" --output {ENDED} --config """


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniSweAgentInside:
    """mini-swe-agent 2. ``config``: a file of its own form on this machine, or the name of one that it brings."""

    name: str
    config: str = "mini.yaml"
    hand_in: Message = HAND_IN

    async def run(self, stage: Stage) -> Done:
        config, own = self.config, Path(self.config)
        if own.is_file():
            config = CONFIG
            await stage.sandbox.write_file(config, own.read_bytes())
        done = await CommandHarness(name=self.name, command=COMMAND + shlex.quote(config)).run(stage)
        if done.exit == "exit 127" and not stage.session.counts.turns:
            raise ConfigError(
                f"there is no mini-swe-agent in the sandbox ({done.output.strip()[-200:]}); install it in the image, "
                f"on PATH or as an environment in {FOLDER} (docs/agents.md), or take --agent mini-swe-agent"
            )
        if done.crashed:
            return done
        kept = await stage.sandbox.read_file(ENDED, most_bytes=MOST_BYTES)
        status = str(json.loads(kept)["info"]["exit_status"])
        return replace(done, exit=status, finished=status == "Submitted")
