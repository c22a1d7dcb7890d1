"""Two results side by side: do they say the same?"""

from jaxdist.report.compare.comparison import Comparison, compare
from jaxdist.report.compare.pairs import ComparisonVerdict
from jaxdist.report.compare.saving import save
from jaxdist.report.compare.sides import PUBLISHED
from jaxdist.report.compare.words import conclusion, rendered

__all__ = ["PUBLISHED", "Comparison", "ComparisonVerdict", "compare", "conclusion", "rendered", "save"]
