"""Looking at results: figures, success probabilities, the spectrum of a loss."""

from .plots import (
    plot_architecture as plot_architecture,
    plot_losses as plot_losses,
    plot_pauli_weights as plot_pauli_weights,
    plot_success as plot_success,
    plot_training as plot_training,
    plot_weights as plot_weights,
)
from .spectrum import pauli_coefficients as pauli_coefficients, pauli_weights as pauli_weights
from .success import (
    LossHistogram as LossHistogram,
    Success as Success,
    loss_histogram as loss_histogram,
    success_probability as success_probability,
)
