"""What a run is told: recipes, their settings and what they say before anything starts."""

from .recipe import Recipe as Recipe
from .recipe import load_recipe as load_recipe
