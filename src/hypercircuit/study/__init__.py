"""Looking at results: figures, success probabilities, spectra, errors, classical optima."""

from .bit_search import Improved as Improved, beam_search as beam_search, improve as improve
from .diagnostics import Diagnostics as Diagnostics, diagnose as diagnose
from .diagnostics_plots import plot_entropy as plot_entropy
from .dmrg import DMRGResult as DMRGResult, dmrg as dmrg, dmrg_bytes as dmrg_bytes
from .ground_state import GroundState as GroundState, minimise as minimise
from .operator_plots import (
    plot_bond_profile as plot_bond_profile,
    plot_error_against_bond as plot_error_against_bond,
    plot_error_against_metric as plot_error_against_metric,
    plot_optima as plot_optima,
    plot_singular_values as plot_singular_values,
)
from .operators import (
    BondError as BondError,
    CutSpectrum as CutSpectrum,
    Optimum as Optimum,
    cut_spectra as cut_spectra,
    errors_against_bond as errors_against_bond,
    optima_against_bond as optima_against_bond,
    truncated as truncated,
)
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
