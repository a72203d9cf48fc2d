"""Environments: tasks, tools, sandboxes and the evidence for a score. Importing it registers them with Gymnasium."""

from .registry.ids import register_environments

register_environments()
