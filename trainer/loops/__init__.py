"""Update after update: imitation, midtraining, reinforcement in turn or ahead, and their metrics."""
