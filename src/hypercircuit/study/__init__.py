"""Looking at results: figures, success probabilities, a loss's spectrum and classical optimum."""

from .bit_search import Improved as Improved, beam_search as beam_search, improve as improve
from .dmrg import DMRGResult as DMRGResult, dmrg as dmrg, dmrg_bytes as dmrg_bytes
from .ground_state import GroundState as GroundState, minimise as minimise
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
