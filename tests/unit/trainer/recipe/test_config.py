import subprocess
import sys

import pytest
from pydantic import ValidationError

from verigym.trainer.recipe.algorithms import (
    ALGORITHMS,
    CorrectionConfig,
    CriticConfig,
    DAPOConfig,
    GRPOConfig,
    KLConfig,
    OPDConfig,
    PPOConfig,
    ReinforcePPConfig,
)
from verigym.trainer.recipe.config import OptimConfig, SFTConfig


def test_reading_a_config_imports_no_torch():
    code = "import sys, verigym.trainer.recipe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "cls", [*ALGORITHMS.values(), OptimConfig, SFTConfig, KLConfig, CorrectionConfig, CriticConfig]
)
def test_every_field_is_described_and_unknown_keys_are_refused(cls):
    assert all(field.description for field in cls.model_fields.values())
    with pytest.raises(ValidationError, match="no_such_key"):
        cls(no_such_key=1)
    made = cls(teacher="there") if cls is OPDConfig else cls()
    assert cls.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize(
    ("cls", "values", "remedy"),
    [
        (GRPOConfig, {"group_size": 1}, "2 or more"),
        (GRPOConfig, {"top_p": 0.9}, "Set top_p = 1.0"),
        (GRPOConfig, {"top_k": 50}, "Set top_k = 0"),
        (GRPOConfig, {"num_tasks": 2, "num_minibatches": 4}, "fewer minibatches"),
        (GRPOConfig, {"temperature": 0.0}, "greater than 0"),
        (GRPOConfig, {"sampling_rounds": 2, "drop_uniform_groups": False}, "set drop_uniform_groups = true"),
        (DAPOConfig, {"overlong_buffer": 5}, "without overlong_length"),
        (DAPOConfig, {"overlong_length": 5, "overlong_buffer": 6}, "lower it"),
        (ReinforcePPConfig, {"baseline": "group"}, "needs 2 or more"),
        (PPOConfig, {"critic": {"kind": "none"}}, "'head', 'shared' or 'model'"),
        (OPDConfig, {}, "set teacher"),
        (OPDConfig, {"teacher": "there", "credit": "turn"}, "leave it out"),
        (ALGORITHMS["max_rl"], {"credit": "turn"}, "leave it out"),
        (ALGORITHMS["dppo"], {"correction": {"kind": "mask"}}, "leave correction out"),
        (OPDConfig, {"teacher": "there", "reward_weight": 1.0, "group_size": 1}, "2 or more"),
        (KLConfig, {"estimator": "k2"}, "set it above 0"),
        (KLConfig, {"coef": 0.1, "estimator": "k1"}, "k2' or 'k3'"),
        (CorrectionConfig, {"cap": 3.0}, "set correction.kind"),
        (CorrectionConfig, {"kind": "truncate", "floor": 0.1}, "set correction.kind = 'mask'"),
        (OptimConfig, {"schedule": "cosine"}, "set total_steps"),
        (OptimConfig, {"total_steps": 10}, "schedule = 'cosine'"),
        (OptimConfig, {"schedule": "cosine", "total_steps": 10, "warmup_steps": 10}, "warm up for fewer"),
        (OptimConfig, {"betas": (0.9, 1.0)}, r"in \[0, 1\)"),
        (SFTConfig, {"patience": 0}, "set epochs, max_steps, or patience"),
        (SFTConfig, {"batch_tokens": 100, "microbatch_tokens": 200}, "Lower it"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_the_remedy(cls, values, remedy):
    with pytest.raises(ValidationError, match=remedy):
        cls(**values)
