"""The reference of what users import: names and their docstrings, by the work they are for."""

PUBLIC = {
    "Environments": {
        "verigym.envs.core": ["ToolEnv", "Submission"],
        "verigym.envs.task": ["Task", "read_jsonl", "write_jsonl"],
        "verigym.envs.tools.spec": ["tool", "ToolError"],
        "verigym.envs.registry.ids": ["make_env"],
        "verigym.envs.registry.opening": ["open_env"],
        "verigym.rewards.score": ["Score", "verdict"],
        "verigym.envs.sandbox.types": ["Limits"],
    },
    "Messages, calls and sampling": {
        "verigym.model.chat.messages": ["Message", "ToolCall"],
        "verigym.model.chat.actions": ["encode_calls"],
        "verigym.model.chat.sampling": ["Sampling"],
    },
    "Episodes": {
        "verigym.agent.loop": ["Budget", "rollout"],
        "verigym.agent.policy": ["TokenPolicy", "ScriptedPolicy"],
        "verigym.agent.chat_policy": ["ChatPolicy"],
        "verigym.agent.trajectory": ["Trajectory"],
    },
    "Evaluations": {
        "verigym.evals.suites.spec": ["Suite"],
        "verigym.evals.metrics": ["pass_at_k", "paired_difference"],
    },
    "Models": {
        "verigym.model.engine.generator": ["Generator"],
        "verigym.model.engine.open": ["open_checkpoint"],
    },
    "Training": {
        "verigym.trainer.recipe.load": ["load_recipe"],
        "verigym.trainer.recipe.recipe": ["Recipe"],
        "verigym.trainer.run.train": ["train"],
        "verigym.trainer.loops.reinforce": ["RL"],
        "verigym.trainer.trl_bridge": ["TrlEnvironments"],
    },
    "Errors": {
        "verigym.errors": [
            "VerigymError",
            "TaskError",
            "SandboxError",
            "GradingError",
            "PolicyError",
            "CheckpointError",
            "ConfigError",
            "TrainingError",
        ]
    },
}
"""Heading -> module -> names."""

INTRODUCTION = """# What Python code imports

Importing `verigym.envs` registers the environments with Gymnasium. The names below are those that stay where they
are; other modules may move between releases, with a warning for one release under their old names. Types are
checked by `py.typed`."""


def api_page() -> str:
    """The page in Markdown, for mkdocstrings to fill."""
    parts = [INTRODUCTION]
    for heading, modules in PUBLIC.items():
        parts.append(f"## {heading}")
        parts += [f"::: {module}.{name}" for module, names in modules.items() for name in names]
    return "\n\n".join(parts) + "\n"
