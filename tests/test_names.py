import pytest

from cnn_jax import list_models, model_info
from cnn_jax.weights.names import TABLES, aliases_for, table_for

REFERENCES = [reference for name in list_models() for reference in model_info(name).references]


@pytest.mark.parametrize("reference", REFERENCES)
def test_every_reference_has_a_table(reference):
    assert table_for(reference)


def test_every_table_serves_a_reference():
    served = {id(table_for(reference)) for reference in REFERENCES}
    assert served == {id(table) for table in TABLES.values()}


def test_old_densenet_keys_have_todays_names():
    assert aliases_for("torchvision.densenet121") and not aliases_for("torchvision.resnet50")
