"""A whole run: its stages, checkpoints, evaluations, report and commands."""
