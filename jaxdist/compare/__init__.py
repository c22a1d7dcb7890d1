"""Two results side by side: do they say the same?"""

from jaxdist.compare.comparison import Comparison, compare
from jaxdist.compare.pairs import Verdict
from jaxdist.compare.saving import save
from jaxdist.compare.sides import PUBLISHED
from jaxdist.compare.words import conclusion, rendered

__all__ = ["PUBLISHED", "Comparison", "Verdict", "compare", "conclusion", "rendered", "save"]
