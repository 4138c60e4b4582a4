import subprocess
import sys

import pytest

import cnn_jax


def modules_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after `code`."""
    script = f"{code}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


def test_import_costs_no_heavy_library():
    assert not {"jax", "tensorflow", "tensorflow_datasets", "matplotlib", "torch"} & modules_after("import cnn_jax")


def test_command_line_costs_no_jax():
    assert "jax" not in modules_after("import cnn_jax.recipes.command_line")


@pytest.mark.parametrize("name", cnn_jax.__all__)
def test_every_public_name_loads(name):
    assert getattr(cnn_jax, name) is not None
    assert name in dir(cnn_jax)


def test_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'resnet'"):
        cnn_jax.resnet
