"""Train binary neural networks in quantum superposition with tensor networks."""

from ._shards import device_mesh as device_mesh
from .bnn import (
    PUBLISHED_ENCODINGS as PUBLISHED_ENCODINGS,
    Choice as Choice,
    Dense as Dense,
    Encoding as Encoding,
    Network as Network,
    Option as Option,
    Register as Register,
    activation_choice as activation_choice,
    encoding_choice as encoding_choice,
    neuron_gates as neuron_gates,
    save_network as save_network,
    save_onnx as save_onnx,
    scale_choice as scale_choice,
    skip_choice as skip_choice,
    to_onnx as to_onnx,
)
from .circuit import (
    Brickwork as Brickwork,
    FreeMPS as FreeMPS,
    Graph as Graph,
    Noise as Noise,
    Noisy as Noisy,
    Truncated as Truncated,
    save_qasm as save_qasm,
    to_qasm as to_qasm,
)
from .config import Config as Config, ConfigError as ConfigError, load_config as load_config
from .data import (
    DataFileError as DataFileError,
    Dataset as Dataset,
    Splits as Splits,
    binarise as binarise,
    downsample_mean as downsample_mean,
    load_files as load_files,
    load_idx as load_idx,
    load_mnist as load_mnist,
    make_gaussians as make_gaussians,
    map_splits as map_splits,
    pick_pixels as pick_pixels,
    quantise as quantise,
    scale_pixels as scale_pixels,
    select_classes as select_classes,
)
from .decode import (
    Decoded as Decoded,
    Score as Score,
    decode as decode,
    exact_energy as exact_energy,
)
from .energy import (
    MPO as MPO,
    Contraction as Contraction,
    ContractionCost as ContractionCost,
    Cumulant as Cumulant,
    Estimate as Estimate,
    Exact as Exact,
    Sampled as Sampled,
    Statevector as Statevector,
    choose_energy as choose_energy,
    sampled_energy as sampled_energy,
    trajectory_energy as trajectory_energy,
)
from .hamiltonian import (
    CompressedLoss as CompressedLoss,
    DiagonalMPO as DiagonalMPO,
    FourierExtension as FourierExtension,
    Hinge as Hinge,
    Lattice as Lattice,
    Logistic as Logistic,
    LossHamiltonian as LossHamiltonian,
    PairwiseLogistic as PairwiseLogistic,
    SigmoidSquared as SigmoidSquared,
    Softmax as Softmax,
    SquaredError as SquaredError,
    SquaredHinge as SquaredHinge,
    ZeroOne as ZeroOne,
    compile_loss as compile_loss,
    compress_loss as compress_loss,
    load_compressed as load_compressed,
    load_mpo as load_mpo,
    save_mpo as save_mpo,
)
from .run import (
    diagnose_run as diagnose_run,
    evaluate_run as evaluate_run,
    sample_run as sample_run,
    train_run as train_run,
)
from .run_compare import ComparisonSettings as ComparisonSettings, compare_run as compare_run
from .run_compile import compile_run as compile_run
from .run_export import export_run as export_run
from .run_noise import noise_run as noise_run
from .run_report import ReportSettings as ReportSettings, report_run as report_run
from .run_restarts import restarts_run as restarts_run
from .run_sweep import (
    plan_sweep as plan_sweep,
    resume_sweep as resume_sweep,
    write_sweep as write_sweep,
)
from .state import (
    Born as Born,
    ChainMPS as ChainMPS,
    ExactMPS as ExactMPS,
    born as born,
    correlations as correlations,
    exact_mps as exact_mps,
    load_mps as load_mps,
    log_probability as log_probability,
    marginals as marginals,
    most_likely as most_likely,
    prepare_state as prepare_state,
    sample as sample,
    save_mps as save_mps,
    trajectory_mps as trajectory_mps,
)
from .study import (
    Axis as Axis,
    Extrapolation as Extrapolation,
    GroundState as GroundState,
    LossHistogram as LossHistogram,
    Success as Success,
    TrustedMinimum as TrustedMinimum,
    dmrg as dmrg,
    extrapolate as extrapolate,
    loss_histogram as loss_histogram,
    minimise as minimise,
    minimise_trusted as minimise_trusted,
    parse_axis as parse_axis,
    pauli_coefficients as pauli_coefficients,
    pauli_weights as pauli_weights,
    resilience as resilience,
    success_probability as success_probability,
)
from .train import (
    LBFGS as LBFGS,
    History as History,
    KLPenalty as KLPenalty,
    Progress as Progress,
    RestartResult as RestartResult,
    Schedule as Schedule,
    TrainResult as TrainResult,
    make_optimiser as make_optimiser,
    restarts as restarts,
    train as train,
)
