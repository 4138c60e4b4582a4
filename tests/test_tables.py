from cnn_jax.tables import aligned


def test_numbers_stand_to_the_right_and_texts_to_the_left():
    assert aligned([("name", "size"), ("a", 1_234), ("bcdef", "5.0"), ("c", None)]) == (
        "name   size\na      1,234\nbcdef    5.0\nc      -"
    )
