"""What a training step needs on a cluster, found without one."""
