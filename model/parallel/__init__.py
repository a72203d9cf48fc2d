"""The decoder over many GPUs: one mesh, and what each of its axes splits."""
