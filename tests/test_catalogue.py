from pathlib import Path

from cnn_jax import list_models
from cnn_jax.models.catalogue import catalogue


def test_docs_models_md_is_what_the_cards_say():
    """If not: cnn-jax list --markdown > docs/models.md"""
    page = Path(__file__).parents[1] / "docs" / "models.md"
    assert page.read_text() == catalogue() + "\n"


def test_every_network_has_its_row():
    rows = [line.split("`")[1] for line in catalogue().splitlines() if line.startswith("| `")]
    assert sorted(rows) == list_models()
