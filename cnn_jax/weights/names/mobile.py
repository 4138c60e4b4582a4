"""SqueezeNet and the networks for small devices behind MobileNet v2 in the state dicts of other libraries."""

from cnn_jax.weights.names.table import Table


def squeezenet(places: tuple[int, ...]) -> Table:
    """Convolutions, ReLUs, pools and fire modules stand in one list, `features`."""
    return (
        (r"conv1", "features.0"),
        *((rf"fire{i}/(\w+)", rf"features.{place}.\1") for i, place in enumerate(places, start=2)),
        (r"head", "classifier.1"),
    )


TABLES: dict[str, Table] = {
    "torchvision.squeezenet1_0": squeezenet((3, 4, 5, 7, 8, 9, 10, 12)),
    "torchvision.squeezenet1_1": squeezenet((3, 4, 6, 7, 9, 10, 11, 12)),
}
