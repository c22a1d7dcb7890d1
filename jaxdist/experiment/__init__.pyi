from . import finished as finished
from . import geometries as geometries
from . import merging as merging
from . import planning as planning
from . import running as running
from .probes import probe as probe
from .resolving import register as register
from .running import run as run
