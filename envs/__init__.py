"""Environments: tasks, tools, sandboxes and the evidence for a score. Importing it registers them with Gymnasium.

May import: rewards, model.chat.
Begin at: core.py (ToolEnv), task.py; then the room of a family.
"""

from .registry.ids import register_environments

register_environments()
