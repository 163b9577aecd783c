"""Looking at results: figures."""

from .plots import (
    plot_architecture as plot_architecture,
    plot_training as plot_training,
    plot_weights as plot_weights,
)
