"""Searches over strengths that train whole grids at once."""

from sklearn_structreg.search.strength import StrengthSearchCV

__all__ = ["StrengthSearchCV"]
