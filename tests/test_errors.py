from cnn_jax.errors import UserError, did_you_mean, first_line


def test_near_names_are_offered():
    assert did_you_mean("model", "lenet", ["lenet5", "vgg16"]) == "unknown model 'lenet'; did you mean lenet5?"


def test_without_a_near_name_the_choices_are_listed():
    assert did_you_mean("split", "zzz", ["train", "test"]) == "unknown split 'zzz'; there are: test, train"


def test_a_long_list_is_cut():
    line = did_you_mean("model", "zzz", [f"net{i:02}" for i in range(30)])
    assert line.endswith("net11, ...")


def test_user_error_is_a_value_error():
    assert issubclass(UserError, ValueError)


def test_first_line_is_one_line_and_keeps_both_ends():
    assert first_line(ValueError("\n  what\nmore")) == "what"
    assert first_line(ValueError()) == "ValueError"
    line = first_line(ValueError("start" + 1000 * "x" + "end"))
    assert len(line) == 300 and line.startswith("start") and line.endswith("end")
