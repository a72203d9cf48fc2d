"""verigym: train and evaluate code agents on work that can be checked.

Rooms: ``agent``, ``envs``, ``evals``, ``model``, ``rewards``, ``trainer``. Importing ``verigym.envs`` registers
the environments with Gymnasium.
"""

import sys

# Absolute: pytest imports this file by the name of its folder, which need not be a package's ("verigym-0.2").
from verigym.moved import OldNames

__version__ = "0.2.0"

sys.meta_path.append(OldNames())
