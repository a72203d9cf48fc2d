"""What a run is told: recipes, their settings and what they say before anything starts.

May import: nothing of trainer; no torch.
Begin at: recipe.py, then algorithms.py.
"""

from .recipe import Recipe as Recipe
from .recipe import load_recipe as load_recipe
