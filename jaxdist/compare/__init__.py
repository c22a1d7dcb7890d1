"""Two results side by side: do they say the same?"""

from jaxdist.compare.comparison import PUBLISHED, Comparison, compare
from jaxdist.compare.pairs import Verdict
from jaxdist.compare.pictures import write as write_picture
from jaxdist.compare.words import rendered

__all__ = ["PUBLISHED", "Comparison", "Verdict", "compare", "rendered", "write_picture"]
