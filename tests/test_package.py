import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cnn_jax


def words_of(script: str) -> set[str]:
    """What a fresh interpreter prints."""
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


def modules_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after `code`."""
    return words_of(f"{code}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})")


# Each room imports from those before it alone; docs/architecture.md draws it.
ROOMS = (
    "platform", "__init__", "errors", "storage", "tables", "atomic", "fetch", "compilation", "distributed", "sharding",
    "layers", "models", "weights", "transfer", "embedding",
    "recipes", "data", "captioning", "segmentation", "preprocessing", "evaluation", "prediction",
    "visualize", "tasks", "training", "export", "commands", "cli",
)  # fmt: skip
# Rooms that stand side by side in it.
APART = {("evaluation", "models"), ("data", "models"), ("recipes", "models"), ("recipes", "compilation")}


def rooms_of(file: Path) -> set[str]:
    """What a file imports from, of ours; what only type checkers see does not count."""
    found, tree = set(), ast.parse(file.read_text())
    tree.body = [node for node in tree.body if not ast.unparse(node).startswith("if TYPE_CHECKING:")]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "cnn_jax":
            parts = node.module.split(".")[1:]
            found |= {parts[0]} if parts else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("cnn_jax.")}
    return found


def test_imports_run_one_way():
    package = Path(cnn_jax.__file__).parent
    rooms = {path.stem if path.is_file() else path.name for path in package.iterdir() if path.name[0] not in "_."}
    rooms -= {"py"}  # py.typed
    assert rooms | {"__init__"} == set(ROOMS)
    for file in package.rglob("*.py"):
        room = file.relative_to(package).parts[0].removesuffix(".py")
        for other in rooms_of(file) & set(ROOMS) - {room}:
            assert ROOMS.index(other) < ROOMS.index(room) and (room, other) not in APART, f"{file} imports {other}"


def test_import_costs_no_heavy_library():
    assert not {"jax", "tensorflow", "tensorflow_datasets", "matplotlib", "torch"} & modules_after("import cnn_jax")


def test_command_line_costs_no_jax():
    assert "jax" not in modules_after("import cnn_jax.recipes.command_line")


@pytest.mark.parametrize("name", cnn_jax.__all__)
def test_every_public_name_loads(name):
    assert getattr(cnn_jax, name) is not None
    assert name in dir(cnn_jax)


def test_type_checkers_see_every_public_name_where_it_is():
    tree = ast.parse(Path(cnn_jax.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    assert {alias.asname: node.module for node in block.body for alias in node.names} == cnn_jax._PUBLIC
    assert (Path(cnn_jax.__file__).parent / "py.typed").exists()


def test_no_public_name_is_that_of_a_file():
    """The import of cnn_jax/NAME.py would put the module in the place of what has its name."""
    package = Path(cnn_jax.__file__).parent
    assert not {path.stem for path in package.iterdir()} & {*cnn_jax.__all__}


def test_a_room_is_at_hand_without_an_import_of_its_own():
    assert "lenet5" in words_of("import cnn_jax; print(*cnn_jax.models.MODELS)")


def test_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'resnet'"):
        cnn_jax.resnet
