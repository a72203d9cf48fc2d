"""What a run is told: recipes, their settings and what they say before anything starts.

May import: nothing of trainer; no torch.
Begin at: recipe.py, then stages.py and algorithms.py.
"""

from .load import load_recipe as load_recipe
from .recipe import Recipe as Recipe
