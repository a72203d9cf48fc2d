"""What programs do: their runs recorded, kept as data, and asked of a policy."""
