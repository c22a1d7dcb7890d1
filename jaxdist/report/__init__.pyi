from . import compare as compare
from . import documents as documents
from . import gallery as gallery
from . import pages as pages
from . import summary as summary
from . import writing as writing
from .summary import show as show
