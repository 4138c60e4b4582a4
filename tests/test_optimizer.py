import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax import UserError
from cnn_jax.recipes import Optimizer, Schedule
from cnn_jax.training.optimizer import is_kernel, learning_rate, make_optimizer, make_schedule

PARAMS = {"conv": {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([3.0])}, "norm": {"scale": jnp.array([4.0])}}
GRADS = [
    {"conv": {"kernel": jnp.array([0.5, 1.0]), "bias": jnp.array([0.25])}, "norm": {"scale": jnp.array([-1.0])}},
    {"conv": {"kernel": jnp.array([-1.0, 0.5]), "bias": jnp.array([1.0])}, "norm": {"scale": jnp.array([2.0])}},
    {"conv": {"kernel": jnp.array([2.0, 0.0]), "bias": jnp.array([-1.0])}, "norm": {"scale": jnp.array([0.5])}},
]


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_takes_the_steps_computed_by_hand(nesterov):
    """PyTorch's: decay joins the gradient before the momentum; Nesterov adds momentum * v + g."""
    lr, momentum, decay = 0.1, 0.9, 0.01
    optimizer, _ = make_optimizer(Optimizer(lr, momentum, nesterov, decay), Schedule(kind="constant"), 1, 10)
    params, state = PARAMS, optimizer.init(PARAMS)
    by_hand = {"kernel": np.array([1.0, -2.0]), "bias": np.array([3.0]), "scale": np.array([4.0])}
    velocity = {key: np.zeros_like(value) for key, value in by_hand.items()}
    for grads in GRADS:
        updates, state = optimizer.update(grads, state, params, value=1.0)
        params = optax.apply_updates(params, updates)
        flat = grads["conv"] | grads["norm"]
        for key, w in by_hand.items():
            g = np.asarray(flat[key]) + (decay * w if key == "kernel" else 0)
            velocity[key] = momentum * velocity[key] + g
            by_hand[key] = w - lr * (g + momentum * velocity[key] if nesterov else velocity[key])
    for key, value in (params["conv"] | params["norm"]).items():
        np.testing.assert_allclose(value, by_hand[key], rtol=1e-6)


def test_decay_touches_kernels_only():
    assert is_kernel(PARAMS) == {"conv": {"kernel": True, "bias": False}, "norm": {"scale": False}}


def rates(schedule, epochs=10, steps=10, lr=0.1):
    rate = make_schedule(schedule, lr, epochs, steps)
    return np.array([float(rate(jnp.asarray(t))) for t in range(epochs * steps)])


def test_constant():
    np.testing.assert_allclose(rates(Schedule(kind="constant")), 0.1)


def test_step_falls_at_its_boundaries():
    values = rates(Schedule(kind="step", boundaries=(3, 7.5), factor=0.1))
    expected = 0.1 * 0.1 ** ((np.arange(100) >= 30).astype(int) + (np.arange(100) >= 75))
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_two_falls_in_one_step_both_count():
    np.testing.assert_allclose(rates(Schedule(kind="step", boundaries=(1.0, 1.001)))[20], 0.001, rtol=1e-5)


def test_cosine_is_half_a_period():
    expected = 0.05 * (1 + np.cos(np.pi * np.arange(100) / 100))
    np.testing.assert_allclose(rates(Schedule(kind="cosine")), expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("kind", ["constant", "cosine", "plateau"])
def test_warmup_rises_to_the_peak_and_joins_the_rest(kind):
    values = rates(Schedule(kind=kind, warmup=2))
    np.testing.assert_allclose(values[:20], 0.1 * np.arange(20) / 20, rtol=1e-5)
    np.testing.assert_allclose(values[20], 0.1, rtol=1e-6)
    if kind == "cosine":
        np.testing.assert_allclose(values[60], 0.05, rtol=1e-5)  # halfway through what is left


def test_step_boundaries_count_from_the_start_despite_warmup():
    values = rates(Schedule(kind="step", boundaries=(5,), warmup=2))
    np.testing.assert_allclose([values[49], values[50]], [0.1, 0.01], rtol=1e-5)


def test_plateau_divides_the_rate_after_patient_epochs_without_improvement():
    steps, schedule = 4, Schedule(kind="plateau", patience=2, factor=0.1)
    optimizer, rate = make_optimizer(Optimizer(lr=1.0, momentum=0.0), schedule, 10, steps)
    params = {"kernel": jnp.array([0.0])}
    state, seen = optimizer.init(params), []
    # Epoch means 2.0, 1.0, then no better: the second epoch in vain divides.
    for loss in (2.0, 1.0, 1.0, 1.5, 1.2, 0.9):
        for wobble in (0.5, -0.5, 0.25, -0.25):
            updates, state = optimizer.update({"kernel": jnp.array([1.0])}, state, params, value=loss + wobble)
        seen.append(-float(updates["kernel"][0]))
    np.testing.assert_allclose(seen, [1, 1, 1, 0.1, 0.1, 0.1], rtol=1e-6)
    np.testing.assert_allclose(learning_rate(rate, state, 0), 0.1, rtol=1e-6)


def test_learning_rate_without_a_plateau_is_the_schedules():
    optimizer, rate = make_optimizer(Optimizer(lr=0.5), Schedule(kind="constant"), 1, 1)
    assert learning_rate(rate, optimizer.init(PARAMS), 7) == 0.5


def test_the_optimiser_runs_under_jit():
    optimizer, _ = make_optimizer(Optimizer(), Schedule(kind="plateau", warmup=1), 2, 2)
    state = optimizer.init(PARAMS)
    jax.jit(lambda g, s: optimizer.update(g, s, PARAMS, value=jnp.float32(1)))(GRADS[0], state)


def test_a_shift_moves_the_schedule_and_nothing_else():
    config, schedule = Optimizer(lr=0.1, momentum=0.0), Schedule(kind="step", boundaries=(1.0,))
    _, rate = make_optimizer(config, schedule, 3, 10)
    optimizer, shifted = make_optimizer(config, schedule, 3, 10, shift=7)
    assert [float(shifted(step)) for step in range(20)] == [float(rate(step + 7)) for step in range(20)]
    params = {"kernel": jnp.ones(1)}
    state = optimizer.init(params)
    moves = []
    for _ in range(5):
        updates, state = optimizer.update({"kernel": jnp.ones(1)}, state, params)
        moves.append(-float(updates["kernel"][0]))
    np.testing.assert_allclose(moves, [0.1, 0.1, 0.1, 0.01, 0.01], rtol=1e-6)


def test_a_plateau_cannot_be_shifted():
    with pytest.raises(UserError, match="the batch size cannot change"):
        make_optimizer(Optimizer(), Schedule(kind="plateau"), 3, 10, shift=7)
