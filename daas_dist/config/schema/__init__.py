"""What can be configured, one dataclass a group.

No class has a default: values live in configs/ only, each with its source. Which are possible says
the type of a field (rules.py has those that several share), and __post_init__ which go together;
typed.py holds values to both.

data.py     the images
search.py   the network that is searched, the search, the policy
train.py    what is trained and compared
run.py      Config, the whole; engine, mesh, resume
reads.py    which keys a run does not read, by the values of others
"""

from daas_dist.config.schema.data import ANY_SIZE, Data
from daas_dist.config.schema.run import Config, Engine, Mesh, Resume
from daas_dist.config.schema.search import (
    FIXED,
    Adam,
    Derived,
    Evidence,
    Model,
    Policy,
    PolicyOptimizer,
    Search,
    Tau,
    Weights,
)
from daas_dist.config.schema.train import ARCHITECTURES, POLICIES, Train, in_torchvision

__all__ = [
    "ANY_SIZE",
    "ARCHITECTURES",
    "FIXED",
    "POLICIES",
    "Adam",
    "Config",
    "Data",
    "Derived",
    "Engine",
    "Evidence",
    "Mesh",
    "Model",
    "Policy",
    "PolicyOptimizer",
    "Resume",
    "Search",
    "Tau",
    "Train",
    "Weights",
    "in_torchvision",
]
