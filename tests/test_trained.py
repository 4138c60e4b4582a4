import json

import numpy as np
import pytest
from runs import summary

from cnn_jax import UserError, load_run, open_dataset


def test_a_run_opens_again_as_it_was_tested(whole):
    out, _ = whole
    run = load_run(out, "latest")
    test_set = open_dataset("mnist_5k", "test")
    logits = run.model.apply(run.variables, run.task.preprocess(test_set.images, None), train=False)
    right = np.mean(np.asarray(logits).argmax(-1) == test_set.labels)
    assert right == pytest.approx(summary(out)["test_top1"])
    assert run.classes == tuple("0123456789") and run.shape == (28, 28, 1)
    assert (run.task.config.model, run.task.classes, run.task.channels) == ("lenet5_modern", 10, 1)


def test_a_run_that_cannot_be_opened_is_told(tmp_path):
    with pytest.raises(UserError, match="cannot read .*config.json"):
        load_run(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model": "lenet5_modern", "seeds": 2}))
    with pytest.raises(UserError, match="trained 2 seeds side by side"):
        load_run(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model": "lenet5_modern", "epoch": 2}))
    with pytest.raises(UserError, match=r"config.json: unknown value 'epoch'; did you mean epochs"):
        load_run(tmp_path)
