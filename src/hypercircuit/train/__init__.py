"""The optax loop, its history, checkpoints and interruption."""

from .checkpoint import (
    latest_metadata as latest_metadata,
    load_latest_checkpoint as load_latest_checkpoint,
    save_checkpoint as save_checkpoint,
)
from .history import History as History
from .interrupt import (
    StopSignals as StopSignals,
    stop_where_nothing_is_lost as stop_where_nothing_is_lost,
)
from .lbfgs import LBFGS as LBFGS
from .loop import (
    CHECKPOINTS as CHECKPOINTS,
    OPERATORS as OPERATORS,
    EnergyKind as EnergyKind,
    Schedule as Schedule,
    TrainResult as TrainResult,
    train as train,
)
from .objective import KLPenalty as KLPenalty
from .optimisers import make_optimiser as make_optimiser, make_schedule as make_schedule
from .progress import Progress as Progress
from .restarts import RestartResult as RestartResult, restarts as restarts
from .shards import ShardedEnergy as ShardedEnergy, agree_to_stop as agree_to_stop
