"""The commands `tasks`, `trace` and `doctor`."""
