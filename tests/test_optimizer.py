import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax import UserError, create_model
from cnn_jax.recipes import Optimizer, Schedule
from cnn_jax.training.optimizer import decay_mask, make_optimizer, make_rate, make_schedule, plateau_scale

PARAMS = {"conv": {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([3.0])}, "norm": {"scale": jnp.array([4.0])}}
GRADS = [
    {"conv": {"kernel": jnp.array([0.5, 1.0]), "bias": jnp.array([0.25])}, "norm": {"scale": jnp.array([-1.0])}},
    {"conv": {"kernel": jnp.array([-1.0, 0.5]), "bias": jnp.array([1.0])}, "norm": {"scale": jnp.array([2.0])}},
    {"conv": {"kernel": jnp.array([2.0, 0.0]), "bias": jnp.array([-1.0])}, "norm": {"scale": jnp.array([0.5])}},
]
RATES = (0.1, 0.02, 0.3)  # another at every step: what is inside the momentum and what is not differ
CONSTANT = Schedule(kind="constant")


def flat(tree):
    return {key: np.asarray(value, np.float64) for key, value in (tree["conv"] | tree["norm"]).items()}


def stepped(config, schedule=CONSTANT):
    """The parameters after the three steps."""
    optimizer = make_optimizer(config, schedule, steps_per_epoch=10)
    params, state = PARAMS, optimizer.init(PARAMS)
    for grads, lr in zip(GRADS, RATES, strict=True):
        updates, state = optimizer.update(grads, state, params, lr=jnp.float32(lr), value=1.0)
        params = optax.apply_updates(params, updates)
    return flat(params)


def by_hand(step, decayed=("kernel",)):
    """The same, by `step(w, g, lr, t, memory, decays)` -> w in float64, for each parameter alone."""
    params, memory = flat(PARAMS), {key: {} for key in flat(PARAMS)}
    for t, (grads, lr) in enumerate(zip(GRADS, RATES, strict=True), 1):
        g = flat(grads)
        params = {key: step(w, g[key], lr, t, memory[key], key in decayed) for key, w in params.items()}
    return params


def agree(found, expected):
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=3e-6, err_msg=key)  # float32 through three steps


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_takes_the_steps_computed_by_hand(nesterov):
    """PyTorch's: decay joins the gradient before the momentum; Nesterov adds momentum * v + g."""

    def step(w, g, lr, t, memory, decays):
        g = g + (0.01 * w if decays else 0)
        v = memory["v"] = 0.9 * memory.get("v", 0) + g
        return w - lr * (g + 0.9 * v if nesterov else v)

    agree(stepped(Optimizer(momentum=0.9, nesterov=nesterov, weight_decay=0.01)), by_hand(step))


def test_at_a_constant_rate_sgd_is_alexnets_formula():
    """v <- 0.9 v - 0.0005 lr w - lr g, w <- w + v (Krizhevsky 2012, sec. 5)."""
    optimizer = make_optimizer(Optimizer(momentum=0.9, weight_decay=5e-4), CONSTANT, 10)
    params, state = PARAMS, optimizer.init(PARAMS)
    w, v = np.array([1.0, -2.0]), 0.0
    for grads in GRADS:
        updates, state = optimizer.update(grads, state, params, lr=0.1, value=1.0)
        params = optax.apply_updates(params, updates)
        v = 0.9 * v - 0.0005 * 0.1 * w - 0.1 * flat(grads)["kernel"]
        w = w + v
    np.testing.assert_allclose(params["conv"]["kernel"], w, rtol=3e-6)


@pytest.mark.parametrize(("epsilon", "used"), [(1.0, 1.0), (None, 1e-10)])
def test_rmsprop_is_tensorflows(epsilon, used):
    """Mean of squares from 1, epsilon in the root, the rate in the momentum (tf.compat.v1.train.RMSPropOptimizer)."""

    def step(w, g, lr, t, memory, decays):
        g = g + (0.01 * w if decays else 0)
        s = memory["s"] = 0.8 * memory.get("s", 1.0) + 0.2 * g**2
        v = memory["v"] = 0.9 * memory.get("v", 0) + lr * g / np.sqrt(s + used)
        return w - v

    config = Optimizer(kind="rmsprop", momentum=0.9, decay=0.8, epsilon=epsilon, weight_decay=0.01)
    agree(stepped(config), by_hand(step))


def adam(g, t, memory, epsilon):
    """Kingma & Ba 2014, algorithm 1, with betas (0.8, 0.9)."""
    m = memory["m"] = 0.8 * memory.get("m", 0) + 0.2 * g
    s = memory["s"] = 0.9 * memory.get("s", 0) + 0.1 * g**2
    return m / (1 - 0.8**t) / (np.sqrt(s / (1 - 0.9**t)) + epsilon)


@pytest.mark.parametrize(("epsilon", "used"), [(0.1, 0.1), (None, 1e-8)])
def test_adamw_decays_beside_adams_step(epsilon, used):
    """Loshchilov & Hutter 2017, algorithm 2, with the rate on both, as PyTorch has it."""

    def step(w, g, lr, t, memory, decays):
        return w - lr * (adam(g, t, memory, used) + (0.05 * w if decays else 0))

    config = Optimizer(kind="adamw", betas=(0.8, 0.9), epsilon=epsilon, weight_decay=0.05)
    agree(stepped(config), by_hand(step))


@pytest.mark.parametrize(("epsilon", "used"), [(0.1, 0.1), (None, 1e-6)])
def test_lamb_steps_in_proportion_to_what_decays(epsilon, used):
    """You 2019, algorithm 2, phi the identity; parameters that do not decay take Adam's step, as in timm."""

    def step(w, g, lr, t, memory, decays):
        update = adam(g, t, memory, used) + (0.05 * w if decays else 0)
        trust = np.linalg.norm(w) / np.linalg.norm(update) if decays else 1.0
        return w - lr * trust * update

    config = Optimizer(kind="lamb", betas=(0.8, 0.9), epsilon=epsilon, weight_decay=0.05)
    agree(stepped(config), by_hand(step))


def test_lamb_without_decay_is_adam():
    config = Optimizer(kind="lamb", betas=(0.8, 0.9), epsilon=1e-6)
    agree(stepped(config), by_hand(lambda w, g, lr, t, memory, decays: w - lr * adam(g, t, memory, 1e-6)))


def test_a_parameter_of_zeros_takes_adams_step_under_lamb():
    """No trust ratio keeps it at 0 for ever."""
    optimizer = make_optimizer(Optimizer(kind="lamb", weight_decay=0.1), CONSTANT, 10)
    params = {"kernel": jnp.zeros(2)}
    updates, _ = optimizer.update({"kernel": jnp.array([1.0, -4.0])}, optimizer.init(params), params, lr=0.5, value=1.0)
    np.testing.assert_allclose(updates["kernel"], [-0.5, 0.5], rtol=1e-5)


@pytest.mark.parametrize("kind", ["sgd", "rmsprop", "adamw"])
def test_everything_decays_where_asked(kind):
    plain, decayed = (
        stepped(Optimizer(kind=kind, weight_decay=decay, decay_on="all", epsilon=1.0)) for decay in (0.0, 0.1)
    )
    assert all((plain[key] != decayed[key]).all() for key in plain)


def test_clip_shortens_the_whole_gradient_before_decay_joins():
    norms = [np.sqrt(sum((value**2).sum() for value in flat(grads).values())) for grads in GRADS]
    assert norms[0] < 1.7 < norms[1], "one is left alone, one is clipped"

    def step(w, g, lr, t, memory, decays):
        g = g * min(1, 1.7 / norms[t - 1]) + (0.5 * w if decays else 0)
        return w - lr * g

    agree(stepped(Optimizer(momentum=0.0, weight_decay=0.5, clip=1.7)), by_hand(step))


def test_the_rate_is_an_argument_and_no_count_of_the_state():
    optimizer = make_optimizer(Optimizer(momentum=0.9), CONSTANT, 10)
    state = optimizer.init(PARAMS)
    first, _ = optimizer.update(GRADS[0], state, PARAMS, lr=0.1, value=1.0)
    later, _ = optimizer.update(GRADS[0], state, PARAMS, lr=0.2, value=1.0)
    np.testing.assert_allclose(later["conv"]["kernel"], 2 * first["conv"]["kernel"], rtol=1e-6)


def test_decay_touches_kernels_only():
    assert decay_mask(PARAMS) == {"conv": {"kernel": True, "bias": False}, "norm": {"scale": False}}
    assert decay_mask(PARAMS, "all") == {"conv": {"kernel": True, "bias": True}, "norm": {"scale": True}}


@pytest.mark.parametrize(
    ("model", "channels", "depthwise"), [("mobilenet_025", 1, 13), ("mobilenetv2_035", 3, 17), ("xception", 3, 34)]
)
def test_depthwise_kernels_can_be_left_out(model, channels, depthwise):
    """One for each block of 1704.04861 table 1, of 1801.04381 table 2, and two or three a module of Xception.

    A kernel over one channel is depthwise but for the stem's over gray images."""
    network = create_model(model, num_classes=10)
    images = jnp.zeros((1, 75, 75, channels))
    params = jax.eval_shape(lambda key: network.init(key, images, train=False), jax.random.key(0))["params"]
    every, some = (jax.tree.leaves(decay_mask(params, of)) for of in ("kernels", "kernels_but_depthwise"))
    left_out = [leaf.shape for leaf, a, b in zip(jax.tree.leaves(params), every, some, strict=True) if a and not b]
    assert len(left_out) == depthwise == sum(every) - sum(some)
    assert all(shape[:3] == (3, 3, 1) for shape in left_out)
    assert decay_mask(params, "kernels_but_depthwise")["stem" if "stem" in params else "conv1"]


def rates(schedule, epochs=10, steps=10, lr=0.1):
    rate = make_schedule(schedule, lr, epochs, steps)
    return np.array([float(rate(jnp.asarray(t))) for t in range(epochs * steps)])


T = np.arange(100)  # the steps of those 10 epochs


def test_constant():
    np.testing.assert_allclose(rates(CONSTANT), 0.1)


def test_step_falls_at_its_boundaries():
    values = rates(Schedule(kind="step", boundaries=(3, 7.5), factor=0.1))
    np.testing.assert_allclose(values, 0.1 * 0.1 ** ((T >= 30).astype(int) + (T >= 75)), rtol=1e-5)


def test_two_falls_in_one_step_both_count():
    np.testing.assert_allclose(rates(Schedule(kind="step", boundaries=(1.0, 1.001)))[20], 0.001, rtol=1e-5)


def test_cosine_is_half_a_period():
    expected = 0.05 * (1 + np.cos(np.pi * T / 100))
    np.testing.assert_allclose(rates(Schedule(kind="cosine")), expected, rtol=1e-4, atol=1e-8)


def test_cosine_can_end_above_zero():
    expected = 0.1 * (0.2 + 0.8 * (1 + np.cos(np.pi * T / 100)) / 2)
    np.testing.assert_allclose(rates(Schedule(kind="cosine", end=0.2)), expected, rtol=1e-5)


@pytest.mark.parametrize("every", [2, 0.7])
def test_exponential_falls_in_stairs(every):
    values = rates(Schedule(kind="exponential", factor=0.94, every=every))
    np.testing.assert_allclose(values, 0.1 * 0.94 ** (T // round(every * 10)), rtol=1e-5)


@pytest.mark.parametrize(("power", "end"), [(1.0, 0.0), (2.0, 0.0), (0.5, 0.1)])
def test_polynomial_falls_to_its_end(power, end):
    values = rates(Schedule(kind="polynomial", power=power, end=end))
    np.testing.assert_allclose(values, 0.1 * (end + (1 - end) * (1 - T / 100) ** power), rtol=1e-5)


@pytest.mark.parametrize("kind", ["constant", "cosine", "polynomial", "plateau"])
def test_warmup_rises_to_the_peak_and_joins_the_rest(kind):
    values = rates(Schedule(kind=kind, warmup=2))
    np.testing.assert_allclose(values[:20], 0.1 * np.arange(20) / 20, rtol=1e-5)
    np.testing.assert_allclose(values[20], 0.1, rtol=1e-6)
    if kind in ("cosine", "polynomial"):
        np.testing.assert_allclose(values[60], 0.05, rtol=1e-5)  # halfway through what is left


def test_warmup_rises_from_its_share_of_the_peak():
    values = rates(Schedule(kind="constant", warmup=2, warmup_from=0.2))
    np.testing.assert_allclose(values[:20], 0.02 + 0.08 * np.arange(20) / 20, rtol=1e-5)


def test_a_constant_warmup_stays_low_and_then_jumps():
    """ResNet-110's 0.01 before 0.1 (He 2015, sec. 4.2)."""
    values = rates(Schedule(kind="constant", warmup=2, warmup_kind="constant", warmup_from=0.1))
    np.testing.assert_allclose(values, np.where(T < 20, 0.01, 0.1), rtol=1e-6)


@pytest.mark.parametrize("kind", ["step", "exponential"])
def test_falls_count_from_the_start_despite_warmup(kind):
    values = rates(Schedule(kind=kind, boundaries=(5,), every=5, warmup=2))
    np.testing.assert_allclose([values[49], values[50]], [0.1, 0.01], rtol=1e-5)


def test_the_rate_grows_with_the_batch_only_when_asked():
    """Goyal 2017, sec. 2.1: 0.1 for 256 images is 3.2 for 8,192."""
    schedule = Schedule(kind="constant")
    assert make_rate(Optimizer(lr=0.1), schedule, 1, 10, 8192)(0) == pytest.approx(0.1)
    assert make_rate(Optimizer(lr=0.1, lr_per=256), schedule, 1, 10, 8192)(0) == pytest.approx(3.2)


def test_plateau_divides_the_rate_after_patient_epochs_without_improvement():
    steps, schedule = 4, Schedule(kind="plateau", patience=2, factor=0.1)
    optimizer = make_optimizer(Optimizer(momentum=0.0), schedule, steps)
    params = {"kernel": jnp.array([0.0])}
    state, seen = optimizer.init(params), []
    # Epoch means 2.0, 1.0, then no better: the second epoch in vain divides.
    for loss in (2.0, 1.0, 1.0, 1.5, 1.2, 0.9):
        for wobble in (0.5, -0.5, 0.25, -0.25):
            updates, state = optimizer.update({"kernel": jnp.array([1.0])}, state, params, lr=1.0, value=loss + wobble)
        seen.append(-float(updates["kernel"][0]))
    np.testing.assert_allclose(seen, [1, 1, 1, 0.1, 0.1, 0.1], rtol=1e-6)


def test_what_counts_as_improvement_on_a_plateau_is_a_threshold():
    """Losses that fall by 5 %: better by 1e-4 each time, never by a tenth."""
    for threshold, last in ((1e-4, 1.0), (0.1, 0.1)):
        schedule = Schedule(kind="plateau", patience=2, threshold=threshold)
        optimizer = make_optimizer(Optimizer(momentum=0.0), schedule, 1)
        params = {"kernel": jnp.array([0.0])}
        state = optimizer.init(params)
        for loss in (1.0, 0.95, 0.95**2):
            updates, state = optimizer.update({"kernel": jnp.array([1.0])}, state, params, lr=1.0, value=loss)
        np.testing.assert_allclose(-updates["kernel"], [last], rtol=1e-6)
    np.testing.assert_allclose(plateau_scale(state), 0.1, rtol=1e-6)


def test_without_a_plateau_its_scale_is_one():
    assert plateau_scale(make_optimizer(Optimizer(), CONSTANT, 1).init(PARAMS)) == 1


@pytest.mark.parametrize("kind", ["sgd", "rmsprop", "adamw", "lamb"])
@pytest.mark.parametrize("schedule", ["plateau", "cosine"])
def test_every_optimiser_runs_under_jit_and_keeps_the_shape_of_its_state(kind, schedule):
    optimizer = make_optimizer(Optimizer(kind=kind, weight_decay=0.1, clip=1.0), Schedule(kind=schedule), 2)
    state = optimizer.init(PARAMS)
    update = jax.jit(lambda g, s, lr, value: optimizer.update(g, s, PARAMS, lr=lr, value=value))
    _, after = jax.eval_shape(update, GRADS[0], state, jnp.float32(0.1), jnp.float32(1))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)


def test_a_shift_moves_the_schedule_and_nothing_else():
    config, schedule = Optimizer(lr=0.1), Schedule(kind="step", boundaries=(1.0,))
    rate, shifted = make_rate(config, schedule, 3, 10, 64), make_rate(config, schedule, 3, 10, 64, shift=7)
    assert [float(shifted(step)) for step in range(20)] == [float(rate(step + 7)) for step in range(20)]


def test_a_plateau_cannot_be_shifted():
    with pytest.raises(UserError, match="the batch size cannot change"):
        make_rate(Optimizer(), Schedule(kind="plateau"), 3, 10, 64, shift=7)
