import jax
import jax.numpy as jnp
import pytest
from jax import lax

from cnn_jax import UserError
from cnn_jax.commands import doctor


def test_a_healthy_machine_is_told_so(capsys):
    lines = list(doctor.doctor())
    assert lines[-1] == "nothing is wrong"
    titles = [line.split()[0] for line in lines[:-1]]
    assert titles[:4] == ["python", "versions", "devices", "XLA_FLAGS"] and titles[-1] == "self-test"
    assert f"jax {jax.__version__}" in lines[1]


def test_a_convolution_that_is_wrong_is_found(monkeypatch):
    def shifted(x, kernel, stride, padding):
        """A pixel off, as a wrong "SAME" is."""
        y = lax.conv_general_dilated(x, kernel, (2, 2), ((0, 2), (0, 2)), dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jnp.asarray(y)

    monkeypatch.setattr(doctor, "convolve", shifted)
    with pytest.raises(UserError, match="a convolution is off by more than 1e-04"):
        list(doctor.doctor())


def test_a_gradient_that_is_wrong_is_found(monkeypatch):
    right = doctor.convolve
    monkeypatch.setattr(doctor, "convolve", lambda x, kernel, *rest: right(x, lax.stop_gradient(kernel), *rest))
    errors = doctor.check_convolution()
    assert errors["forward"] < doctor.ROUNDING and errors["by the kernel"] > 0.99


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        ({"jax": "0.7.2", "jaxlib": "0.10.2"}, "jaxlib 0.10.2 is newer than jax"),
        ({"orbax-checkpoint": "1.0.0"}, "orbax-checkpoint 1.0 has another interface"),
        ({"jax-cuda12-plugin": "0.7.1"}, "jax-cuda12-plugin 0.7.1 does not fit jaxlib"),
    ],
)
def test_combinations_that_fail_are_told(monkeypatch, versions, message):
    found = doctor.metadata.version
    monkeypatch.setattr(doctor.metadata, "version", lambda name: versions.get(name) or found(name))
    assert message in " ".join(doctor._versions())


def test_a_folder_that_cannot_be_written_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "file" / "programs"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="programs cannot be written; programs are made or fetched anew"):
        list(doctor.doctor())


def test_a_gpu_that_is_not_used_is_told(monkeypatch):
    monkeypatch.setattr(doctor.Path, "exists", lambda path: "nvidia" in str(path))
    assert "NVIDIA GPU that JAX does not use" in doctor._accelerators("cpu")[0]
    assert doctor._accelerators("gpu") == []
