"""Running programs that nobody vouches for, and saying whether they are right."""
