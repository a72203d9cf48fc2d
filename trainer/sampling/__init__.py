"""Where trajectories come from: families of tasks, which task is next, groups of episodes, what a policy is worth."""
