"""Looking at results: sweeps, comparisons, figures, spectra, errors, classical optima."""

from .aggregate import (
    Convergence as Convergence,
    Group as Group,
    Summary as Summary,
    check_convergence as check_convergence,
    extrapolate_groups as extrapolate_groups,
    find_minima as find_minima,
    make_groups as make_groups,
)
from .bit_search import Improved as Improved, beam_search as beam_search, improve as improve
from .comparison_plots import (
    plot_against as plot_against,
    plot_extrapolation as plot_extrapolation,
)
from .diagnostics import (
    Diagnostics as Diagnostics,
    diagnose as diagnose,
    discarded_weights as discarded_weights,
)
from .diagnostics_plots import plot_entropy as plot_entropy
from .dmrg import DMRGResult as DMRGResult, dmrg as dmrg, dmrg_bytes as dmrg_bytes
from .extrapolate import Extrapolation as Extrapolation, extrapolate as extrapolate
from .grid import Axis as Axis, combine as combine, parse_axis as parse_axis
from .ground_state import GroundState as GroundState, minimise as minimise
from .members import (
    MemberState as MemberState,
    member_lock as member_lock,
    member_state as member_state,
)
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
    FoundNetwork as FoundNetwork,
    Optimum as Optimum,
    cut_spectra as cut_spectra,
    errors_against_bond as errors_against_bond,
    further_truncation as further_truncation,
    optima_against_bond as optima_against_bond,
    other_data as other_data,
    truncated as truncated,
    trusted_optimum as trusted_optimum,
)
from .plots import (
    plot_architecture as plot_architecture,
    plot_losses as plot_losses,
    plot_pauli_weights as plot_pauli_weights,
    plot_resilience as plot_resilience,
    plot_success as plot_success,
    plot_training as plot_training,
    plot_weights as plot_weights,
)
from .pool import Job as Job, JobEnd as JobEnd, run_pool as run_pool
from .resilience import (
    Resilience as Resilience,
    every_accuracy as every_accuracy,
    mixed_energies as mixed_energies,
    resilience as resilience,
)
from .spectrum import pauli_coefficients as pauli_coefficients, pauli_weights as pauli_weights
from .success import (
    LossHistogram as LossHistogram,
    Success as Success,
    loss_histogram as loss_histogram,
    success_probability as success_probability,
)
from .table import flatten as flatten, tidy as tidy, write_table as write_table
from .trusted_search import (
    TrustedMinimum as TrustedMinimum,
    minimise_trusted as minimise_trusted,
    unlikeliness as unlikeliness,
)
