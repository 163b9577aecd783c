"""The configuration of a run: sections of plain values, read from TOML.

A value is looked up in four layers; a later layer replaces an earlier one::

    defaults  <  config file  <  [profiles.NAME] of that file  <  section.key=value

A value is replaced as a whole (a list or a table of options is not merged),
except that ``optimiser.options.b1=0.8`` sets one entry of a table. Every name is
checked, in profiles that are not chosen too, so that a mistyped key never runs
with a default in its place. A `Config` is immutable, and `Config.to_toml` writes
every value of it, so that a run folder records what was run. [slurm] says where; it
may differ when a run is resumed::

    [data] [network] [loss] [circuit] [energy] [mpo]    the problem and its state
    [objective] [optimiser] [train] [decode]            what is done with it
    [restarts] [slurm]

Source: the layout follows TeNPy's and NetKet's run folders.
"""

from .config import Config as Config
from .fit import (
    check_chain_size as check_chain_size,
    check_compressed as check_compressed,
    check_exact_size as check_exact_size,
)
from .load import load_config as load_config
from .network import make_network as make_network
from .sections import DataConfig as DataConfig, TrainConfig as TrainConfig
from .slurm import SlurmConfig as SlurmConfig
from .values import ConfigError as ConfigError
