from . import finished as finished
from . import planning as planning
from . import running as running
from .probes import probe as probe
from .running import run as run
