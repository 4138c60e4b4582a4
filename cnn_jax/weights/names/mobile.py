"""SqueezeNet and the networks for small devices behind MobileNet v2 in the state dicts of other libraries."""

from cnn_jax.weights.names.table import Table


def squeezenet(places: tuple[int, ...]) -> Table:
    """Convolutions, ReLUs, pools and fire modules stand in one list, `features`."""
    return (
        (r"conv1", "features.0"),
        *((rf"fire{i}/(\w+)", rf"features.{place}.\1") for i, place in enumerate(places, start=2)),
        (r"head", "classifier.1"),
    )


SHUFFLENET_V1: Table = (
    (r"stem/conv", "features.init_block.conv"),
    (r"stem/norm", "features.init_block.bn"),
    *(
        row
        for i, layer, theirs in ((1, "reduce", "compress"), (2, "depthwise", "dw"), (3, "expand", "expand"))
        for row in (
            (rf"stage(\d)_block(\d)/{layer}/conv", rf"features.stage<1>.unit\2.{theirs}_conv{i}"),
            (rf"stage(\d)_block(\d)/{layer}/norm", rf"features.stage<1>.unit\2.{theirs}_bn{i}"),
        )
    ),
    (r"head", "output"),
)
SHUFFLENET_V2: Table = (
    (r"stem/conv", "conv1.0"),
    (r"stem/norm", "conv1.1"),
    *(
        row
        for layer, theirs, place in (
            ("shortcut_depthwise", "branch1", 0),
            ("shortcut_pointwise", "branch1", 2),
            ("pointwise1", "branch2", 0),
            ("depthwise", "branch2", 3),
            ("pointwise2", "branch2", 5),
        )
        for row in (
            (rf"stage(\d)_block(\d)/{layer}/conv", rf"stage\1.<2>.{theirs}.{place}"),
            (rf"stage(\d)_block(\d)/{layer}/norm", rf"stage\1.<2>.{theirs}.{place + 1}"),
        )
    ),
    (r"final/conv", "conv5.0"),
    (r"final/norm", "conv5.1"),
    (r"head", "fc"),
)

TABLES: dict[str, Table] = {
    "torchvision.squeezenet1_0": squeezenet((3, 4, 5, 7, 8, 9, 10, 12)),
    "torchvision.squeezenet1_1": squeezenet((3, 4, 6, 7, 9, 10, 11, 12)),
    "pytorchcv.shufflenet_*": SHUFFLENET_V1,
    "torchvision.shufflenet_v2_*": SHUFFLENET_V2,
}
