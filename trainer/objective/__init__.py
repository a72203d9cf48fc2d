"""From rewards to numbers per token: advantages, losses, the critic and the reference."""
