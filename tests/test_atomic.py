import json

from cnn_jax.atomic import write_json


def test_json_is_replaced_whole(tmp_path):
    write_json(tmp_path / "s.json", {"a": 1})
    write_json(tmp_path / "s.json", {"a": 2})
    assert json.loads((tmp_path / "s.json").read_text()) == {"a": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["s.json"]
