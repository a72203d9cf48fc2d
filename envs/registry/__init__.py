"""From the name of an environment to an open one, and from a file to its tasks.

May import: core and what is below.
Begin at: ids.py.
"""

from .ids import FAMILY_ENVS as FAMILY_ENVS
from .ids import OURS as OURS
from .ids import load_plugins as load_plugins
from .ids import make_env as make_env
from .ids import register_environments as register_environments
