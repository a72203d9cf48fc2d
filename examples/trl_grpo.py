"""verigym's environments inside TRL's GRPOTrainer: word problems with a Python tool, in a sandbox.

    python examples/trl_grpo.py FOLDER_OR_NAME_OF_A_MODEL [--steps N] [--tokens N]

The model needs a chat template with tools that TRL knows, such as Qwen 3's. Without a GPU it trains on the CPU, in
float32.
"""

import argparse

import torch
from trl import GRPOConfig, GRPOTrainer

from verigym.envs.synthesis.small_sums import small_sums
from verigym.trainer.trl_bridge import TrlEnvironments


def main() -> None:
    parser = argparse.ArgumentParser(description="Train on word problems with a Python tool.")
    parser.add_argument("model")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=512, help="most of an episode's answers together")
    parser.add_argument("--out", default="runs/trl")
    args = parser.parse_args()
    cuda = torch.cuda.is_available()
    tasks = small_sums(num=200, seed=0, held_out=False)
    with TrlEnvironments("verigym/Math-v0", tasks, tools=True) as environments:
        trainer = GRPOTrainer(
            model=args.model,
            args=GRPOConfig(
                output_dir=args.out,
                max_steps=args.steps,
                use_cpu=not cuda,
                bf16=cuda,  # TRL's default, which no CPU is asked for
                num_generations=8,
                max_completion_length=args.tokens,
                max_tool_calling_iterations=4,
                report_to=[],
            ),
            train_dataset=environments.dataset(),
            environment_factory=environments,
            reward_funcs=environments.reward,
        )
        trainer.train()
        trainer.save_model()


if __name__ == "__main__":
    main()
