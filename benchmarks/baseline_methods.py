"""The methods that ``baselines.py`` compares: each trains one binary network for a given time.

A method takes (problem, seconds, seed, settings) and returns rows. Compiling and other set-up is
timed apart; in the loop, ``seconds`` of wall time pass, looks at the validation examples included.

    straight_through    latent real weights, their signs in the forward pass, Adam
    bayesbinn           natural parameters of a Bernoulli mean field, one relaxed sample a step
    annealing           single bit flips: Metropolis, then greedy
    hypercircuit_*      the package itself
"""

import itertools
import tempfile
import time

import numpy as np
from baseline_problems import (
    LOSSES,
    Clock,
    Selection,
    logits,
    random_tables,
    score,
    score_ensemble,
    to_signs,
    with_ones,
)

EVALUATIONS = 20
"""Looks at the validation examples during a run."""
OUR_EVALUATIONS = 5
"""The same for hypercircuit, which decodes many networks in the end."""
STEPS_AT_ONCE = 50
"""Gradient steps between two readings of the clock."""
ENSEMBLE_SIZE = 10
CALIBRATION_STEPS = 90
DECODED_SAMPLES = 100

# Chosen by validation loss; README.md says what was tried. Besides learning rates and batch sizes:
# width, of the window in which a hidden sign passes its gradient; temperature and the size of the
# first natural parameters (start); first and last temperature in nats, examples in a subset (n_)
# and flips tried on it, and the share of the time that is greedy.
SETTINGS = {
    "straight-through": {
        "linear": {"learning_rate": 1e-2, "batch_size": 100},
        "hidden": {"learning_rate": 1e-2, "batch_size": 100, "width": 10.0},
    },
    "bayesbinn": {
        "linear": {"learning_rate": 3e-4, "temperature": 1e-10, "start": 10.0, "batch_size": 50},
        "hidden": {
            "learning_rate": 1e-3,
            "temperature": 1e-10,
            "start": 10.0,
            "batch_size": 100,
            "width": 28.0,
        },
    },
    "annealing": {
        "linear": {
            "first": 1e-3,
            "last": 1e-5,
            "n_examples": 5_000,
            "greedy": 0.2,
            "n_greedy": 20_000,
            "flips": 10_000,
        },
        "hidden": {
            "first": 1e-3,
            "last": 1e-5,
            "n_examples": 20_000,
            "greedy": 0.2,
            "n_greedy": 20_000,
            "flips": 10_000,
        },
    },
    "ours-depth-4": {
        "linear": {
            "depth": 4,
            "rotations": "ry-rz",
            "learning_rate": 0.1,
            "batch_size": 100,
        },
        "hidden": {"depth": 4, "rotations": "ry", "learning_rate": 0.05, "batch_size": 250},
    },
    "ours-depth-1": {
        "linear": {
            "depth": 1,
            "rotations": "ry-rz",
            "learning_rate": 0.3,
            "batch_size": 100,
        },
        "hidden": {"depth": 1, "rotations": "ry", "learning_rate": 0.05, "batch_size": 250},
    },
}


# ---------------------------------------------------------------- gradients


def differentiable_loss(problem, width):
    """Return f(tables, x, y), the mean training loss with straight-through sign activations.

    Backwards, an activation's sign counts as clip(a / width, -1, 1).
    """
    import jax
    import jax.numpy as jnp

    @jax.custom_vjp
    def activate(a):
        return jnp.where(a >= 0, 1.0, -1.0)

    activate.defvjp(
        lambda a: (activate(a), a),
        lambda a, gradient: (jnp.where(jnp.abs(a) <= width, gradient / width, 0.0),),
    )

    def loss(tables, x, y):
        for table in tables[:-1]:
            hidden = activate(x @ table.T)
            x = jnp.concatenate([hidden, jnp.ones((len(hidden), 1))], axis=1)
        z = problem.spec.logit_scale * (x @ tables[-1].T)
        right = jnp.take_along_axis(z, y[:, None], axis=1)[:, 0]
        if problem.loss == "softmax":
            return (jax.nn.logsumexp(z, axis=1) - right).mean()
        return (jax.nn.softplus(z).sum(axis=1) - right).mean()

    return loss


def example_rows(n_examples, batch_size, rng):
    """Yield (STEPS_AT_ONCE, batch_size) rows without end: every example once an epoch."""
    batches = np.zeros((0, batch_size), np.int32)
    while True:
        while len(batches) < STEPS_AT_ONCE:
            kept = n_examples // batch_size * batch_size
            epoch = rng.permutation(n_examples)[:kept].reshape(-1, batch_size).astype(np.int32)
            batches = np.concatenate([batches, epoch])
        yield batches[:STEPS_AT_ONCE]
        batches = batches[STEPS_AT_ONCE:]


def descend(problem, seconds, seed, state, update, to_tables, batch_size):
    """Run minibatch updates for the given time, with a cosine from 1 to 0 over it.

    Args:
        state: what the first update starts from.
        update: update(state, x, y, cosine, key) -> the next state.
        to_tables: the binary network of a state.

    Returns:
        the last state, the network of lowest validation loss, and entries of a row.
    """
    import jax

    begun = time.perf_counter()
    x, y = jax.device_put((problem.train.x, problem.train.y))

    def run(state, x, y, rows, cosine, key):
        def step(state, inputs):
            chosen, key = inputs
            return update(state, x[chosen], y[chosen], cosine, key), None

        return jax.lax.scan(step, state, (rows, jax.random.split(key, len(rows))))[0]

    batches = example_rows(len(problem.train.y), batch_size, np.random.default_rng(seed))
    key = jax.random.key(seed)
    arguments = (state, x, y, next(batches), 1.0, key)
    compiled = jax.jit(run).lower(*arguments).compile()
    jax.block_until_ready(compiled(*arguments))
    setup_seconds = time.perf_counter() - begun

    clock, chunk = Clock(seconds), 0
    selection = Selection(problem, clock, EVALUATIONS)
    while clock.fraction < 1:
        cosine = 0.5 * (1 + np.cos(np.pi * clock.fraction))
        chunk_key = jax.random.fold_in(key, chunk)
        state = compiled(state, x, y, next(batches), cosine, chunk_key)
        jax.block_until_ready(state)
        chunk += 1
        if selection.due:
            selection.look(to_tables(state))
    selection.look(to_tables(state))
    entries = {
        "setup_seconds": setup_seconds,
        "loop_seconds": clock.elapsed,
        "steps": chunk * STEPS_AT_ONCE,
        "step_unit": f"updates of {batch_size} examples",
    }
    return state, selection.tables, entries


def straight_through(problem, seconds, seed, settings):
    """Adam on latent weights in [-1, 1]; the forward pass uses their signs.

    The gradient in a sign is taken as that in its latent weight (Courbariaux et al. 2015,
    arXiv:1511.00363); after every update the latent weights are clipped.
    """
    import jax
    import jax.numpy as jnp
    import optax

    loss = differentiable_loss(problem, settings.get("width"))
    adam = optax.scale_by_adam()
    rng = np.random.default_rng([seed, 1])
    latent = [rng.uniform(-0.1, 0.1, shape).astype(np.float32) for shape in problem.spec.shapes]

    def update(state, x, y, cosine, key):
        latent, moments = state
        tables = [jnp.where(table >= 0, 1.0, -1.0) for table in latent]
        gradient = jax.grad(loss)(tables, x, y)
        updates, moments = adam.update(gradient, moments)
        rate = settings["learning_rate"] * cosine
        moved = jax.tree.map(lambda w, u: jnp.clip(w - rate * u, -1, 1), latent, updates)
        return moved, moments

    def to_tables(state):
        return [to_signs(np.asarray(table)) for table in state[0]]

    start = jax.device_put((latent, adam.init(latent)))
    _, tables, entries = descend(
        problem, seconds, seed, start, update, to_tables, settings["batch_size"]
    )
    return [entries | score(problem, tables)]


def bayesbinn(problem, seconds, seed, settings):
    """The Bayesian learning rule for a mean field of Bernoulli weights, with natural parameters l.

    Meng, Bachmann and Khan 2020 (arXiv:2002.10778), without momentum, one sample a step, uniform
    prior, with N training examples, u uniform and g the gradient of the mean loss at w:

        w = tanh((l + logit(u) / 2) / temperature)
        s = N (1 - w^2 + 1e-10) / (temperature (1 - tanh(l)^2 + 1e-10))
        l <- (1 - rate) l - rate s g

    The first row is the mode sign(l), the second the mean prediction of sampled networks. At the
    published temperature, 1e-10, single precision makes w a sign and l so large that the samples
    hardly differ from the mode.
    """
    import jax
    import jax.numpy as jnp

    loss = differentiable_loss(problem, settings.get("width"))
    temperature, n_examples = settings["temperature"], len(problem.train.y)
    start = [
        np.float32(settings["start"]) * table
        for table in random_tables(problem.spec, np.random.default_rng([seed, 1]))
    ]

    def squared_sech(a):
        """1 - tanh(a)^2, without its cancellation."""
        small = jnp.exp(-2 * jnp.abs(a))
        return 4 * small / (1 + small) ** 2

    def update(natural, x, y, cosine, key):
        keys = jax.random.split(key, len(natural))
        noise = [
            0.5 * jax.random.logistic(key, table.shape)
            for key, table in zip(keys, natural, strict=True)
        ]
        drawn = [(a + b) / temperature for a, b in zip(natural, noise, strict=True)]
        gradient = jax.grad(loss)([jnp.tanh(table) for table in drawn], x, y)
        rate = settings["learning_rate"] * cosine

        def move(natural, drawn, gradient):
            slope, spread = squared_sech(drawn) + 1e-10, squared_sech(natural) + 1e-10
            scale = n_examples * slope / temperature / spread
            return (1 - rate) * natural - rate * scale * gradient

        return jax.tree.map(move, natural, drawn, gradient)

    def to_tables(natural):
        return [to_signs(np.asarray(table)) for table in natural]

    last, tables, entries = descend(
        problem, seconds, seed, jax.device_put(start), update, to_tables, settings["batch_size"]
    )
    rng = np.random.default_rng([seed, 2])
    sampled = [
        [to_signs(np.asarray(table) + 0.5 * rng.logistic(size=table.shape)) for table in last]
        for _ in range(ENSEMBLE_SIZE)
    ]
    return [
        entries | {"variant": "mode"} | score(problem, tables),
        entries | {"variant": f"mean of {ENSEMBLE_SIZE}"} | score_ensemble(problem, sampled),
    ]


# ---------------------------------------------------------------- bit flips


class FlipCache:
    """Logits and losses of some examples, kept up to date while single bits flip.

    A flip in the first layer touches the examples whose input is not 0; with a hidden layer only
    those of them matter where the hidden unit's sign changes. Arrays are (units, examples).
    """

    def __init__(self, problem, tables, part):
        self.tables, self._y = tables, part.y
        self._scale = np.float32(problem.spec.logit_scale)
        self._loss = LOSSES[problem.loss]
        flags = np.ascontiguousarray(part.x.T)
        self._rows = [np.flatnonzero(column) for column in flags]
        self._values = [column[rows] for column, rows in zip(flags, self._rows, strict=True)]
        self._all = np.arange(len(part.y))
        self._hidden = None
        if len(tables) == 2:
            self._sums = tables[0] @ flags
            self._hidden = with_ones(to_signs(self._sums.T)).T.copy()
        self._z = logits(problem.spec, tables, part.x).T.copy()
        self._losses = self._loss(self._z, part.y)

    @property
    def mean_loss(self):
        """Mean loss of the cached examples."""
        return float(self._losses.mean(dtype=np.float64))

    def try_flip(self, layer, unit, column, threshold):
        """Flip a bit if the mean loss then grows by less than ``threshold``; return whether."""
        step = -2 * self.tables[layer][unit, column]
        if layer == 0 and self._hidden is not None:
            rows = self._rows[column]
            before = self._sums[unit, rows]
            after = before + step * self._values[column]
            crossed = (before >= 0) != (after >= 0)
            changed = rows[crossed]
            signs = to_signs(after[crossed])
            added = np.outer(self.tables[1][:, unit], 2 * self._scale * signs)
            z = self._z[:, changed] + added
        else:
            if self._hidden is None:
                changed, inputs = self._rows[column], self._values[column]
            else:
                changed, inputs = self._all, self._hidden[column]
            z = self._z[:, changed]
            z[unit] += self._scale * step * inputs
        losses = self._loss(z, self._y[changed])
        change = (losses.sum() - self._losses[changed].sum()) / len(self._y)
        if not change < threshold:
            return False
        self.tables[layer][unit, column] += step
        self._z[:, changed], self._losses[changed] = z, losses
        if layer == 0 and self._hidden is not None:
            self._sums[unit, rows] = after
            self._hidden[unit, changed] = signs
        return True


def all_bits(tables, rng):
    """Yield (layer, unit, column) without end, every bit once a sweep in a random order."""
    sizes = [table.size for table in tables]
    offsets = np.cumsum([0, *sizes])
    while True:
        for number in rng.permutation(offsets[-1]):
            layer = int(np.searchsorted(offsets, number, side="right")) - 1
            yield (layer, *divmod(int(number - offsets[layer]), tables[layer].shape[1]))


def annealing(problem, seconds, seed, settings):
    """Metropolis flips of single bits at a falling temperature, then greedy flips.

    The temperature, in nats of the mean loss, falls geometrically. The loss is that of
    ``n_examples`` training examples, drawn anew for every ``flips`` proposals.
    """
    begun = time.perf_counter()
    rng = np.random.default_rng(seed)
    tables = random_tables(problem.spec, rng)
    bits = all_bits(tables, rng)
    ratio = settings["last"] / settings["first"]
    setup_seconds = time.perf_counter() - begun

    clock = Clock(seconds)
    selection = Selection(problem, clock, EVALUATIONS)
    tried = kept = 0
    while clock.fraction < 1:
        greedy = clock.fraction >= 1 - settings["greedy"]
        n_examples = settings["n_greedy"] if greedy else settings["n_examples"]
        rows = rng.choice(len(problem.train.y), n_examples, replace=False)
        part = type(problem.train)(problem.train.x[rows], problem.train.y[rows])
        cache = FlipCache(problem, tables, part)
        for draw in rng.exponential(size=settings["flips"]):
            fraction = clock.fraction
            if fraction >= 1:
                break
            heat = 0.0
            if not greedy:
                heat = settings["first"] * ratio ** (fraction / (1 - settings["greedy"]))
            kept += cache.try_flip(*next(bits), heat * draw)
            tried += 1
            if selection.due:
                selection.look(tables)
    selection.look(tables)
    entries = {
        "setup_seconds": setup_seconds,
        "loop_seconds": clock.elapsed,
        "steps": tried,
        "accepted": kept,
        "step_unit": "flips tried",
    }
    return [entries | score(problem, selection.tables)]


# ---------------------------------------------------------------- ours


def hypercircuit_network(problem):
    """Return the package's network, training loss and a function from a bitstring to tables."""
    import hypercircuit

    spec = problem.spec
    layers = tuple(hypercircuit.Dense(*sizes) for sizes in itertools.pairwise(spec.widths))
    network = hypercircuit.Network(layers, logit_scale=spec.logit_scale)
    loss = {"softmax": hypercircuit.Softmax, "one-vs-rest": hypercircuit.Logistic}[problem.loss]()

    def to_tables(bits):
        found = network.decode(bits[None]).layers
        return [np.concatenate([each.weights[0], each.biases[0][:, None]], 1) for each in found]

    return network, loss, to_tables


def hypercircuit_training(problem, seconds, seed, settings):
    """The package's ``train`` with the order-two cumulant energy and the brickwork, then decode.

    The number of steps is chosen from short runs so that training, its evaluations and decoding
    fill the time. Evaluations measure the cumulant energy's error too, on one example.
    """
    import jax

    import hypercircuit

    begun = time.perf_counter()
    network, loss, to_tables = hypercircuit_network(problem)
    circuit = hypercircuit.Brickwork(settings["depth"], settings["rotations"])
    splits = problem.splits
    hamiltonian = hypercircuit.compile_loss(network, splits.train, loss)

    def run(steps, evaluate_every):
        result = hypercircuit.train(
            hamiltonian,
            circuit,
            energy=hypercircuit.Cumulant(2),
            optimiser=hypercircuit.make_optimiser(
                "adam", settings["learning_rate"], schedule="cosine", steps=steps
            ),
            schedule=hypercircuit.Schedule(
                steps=steps,
                batch_size=settings["batch_size"],
                evaluate_every=evaluate_every,
                check_examples=1,
            ),
            seed=seed,
            validation=splits.validation,
            progress=hypercircuit.Progress(enabled=False),
        )
        start = time.perf_counter()
        decoded = hypercircuit.decode(
            circuit,
            result.params,
            network,
            loss,
            splits,
            jax.random.key(seed),
            samples=DECODED_SAMPLES,
            candidates=result.best_bits[None],
        )
        decode_seconds = time.perf_counter() - start
        return result, decoded, decode_seconds

    # Compiled code is kept for the next run, whose seconds then are those of running it.
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        run(2, 2)
        every = CALIBRATION_STEPS // 3
        result, _, decode_seconds = run(CALIBRATION_STEPS, every)
        gaps = np.diff(result.history.seconds)
        first_look, later_look = gaps[every - 1], gaps[2 * every - 1]
        step_seconds = float(np.delete(gaps, [every - 1, 2 * every - 1]).mean())
        left = seconds - decode_seconds - first_look - (OUR_EVALUATIONS - 1) * later_look
        steps = max(OUR_EVALUATIONS, int(left / step_seconds))
        setup_seconds = time.perf_counter() - begun
        result, decoded, decode_seconds = run(steps, -(-steps // OUR_EVALUATIONS))
    entries = {
        "setup_seconds": setup_seconds + result.compile_seconds,
        "loop_seconds": result.seconds - result.compile_seconds + decode_seconds,
        "steps": result.step,
        "step_unit": f"updates of {settings['batch_size']} examples",
        "decode_seconds": decode_seconds,
        "status": "ok" if result.status == "finished" else result.message,
    }
    return [entries | score(problem, to_tables(decoded.bits))]


METHODS = {
    "straight-through": straight_through,
    "bayesbinn": bayesbinn,
    "annealing": annealing,
    "ours-depth-4": hypercircuit_training,
    "ours-depth-1": hypercircuit_training,
}
OURS = ("ours-depth-4", "ours-depth-1")
"""What the name "ours" stands for: depth 1, the product state, stands beside every result."""
