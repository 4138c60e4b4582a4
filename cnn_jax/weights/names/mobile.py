"""SqueezeNet and the networks for small devices behind MobileNet v2 in the state dicts of other libraries."""

from cnn_jax.weights.names.sequential import TIMM_MOBILENET_V2
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


def torchvision_mobilenet_v3(counts: tuple[int, ...], gated: tuple[int, ...]) -> Table:
    """The stem, all blocks and the last convolution stand in one list, `features`; stages `gated` have SE."""
    table, place = [], 0
    for stage, count in enumerate(counts, start=1):
        for j in range(1, count + 1):
            place += 1
            here, there = f"stage{stage}_block{j}", f"features.{place}.block"
            inner = ("depthwise", *(("se",) if stage in gated else ()), "project")
            for i, layer in enumerate(inner if place == 1 else ("expand", *inner)):
                if layer == "se":
                    table.append((f"{here}/se/reduce", f"{there}.{i}.fc1", 4))
                    table.append((f"{here}/se/expand", f"{there}.{i}.fc2", 4))
                else:
                    table += [(f"{here}/{layer}/conv", f"{there}.{i}.0"), (f"{here}/{layer}/norm", f"{there}.{i}.1")]
    ends = [("stem", 0), ("final", place + 1)]
    table += [(f"{end}/{part}", f"features.{i}.{k}") for end, i in ends for k, part in enumerate(("conv", "norm"))]
    return (*table, (r"hidden", "classifier.0"), (r"head", "classifier.3"))


TIMM_SE: Table = (
    (r"stage(\d)_block(\d)/se/reduce", r"blocks.<1>.<2>.se.conv_reduce", 4),
    (r"stage(\d)_block(\d)/se/expand", r"blocks.<1>.<2>.se.conv_expand", 4),
)


def timm_mobilenet_v3(stages: int) -> Table:
    """Version 2's, with the last convolution among the blocks."""
    return (
        (r"final/conv", f"blocks.{stages}.0.conv"),
        (r"final/norm", f"blocks.{stages}.0.bn1"),
        (r"hidden", "conv_head", 4),
        *TIMM_SE,
        *TIMM_MOBILENET_V2,
    )


def torchvision_mnasnet() -> Table:
    """The stem, the first block and the last convolution lie open in the list of stages, `layers`."""
    expanding = (("expand", 0), ("depthwise", 3), ("project", 6))
    places = [("stem", 0), ("stage1_block1/depthwise", 3), ("stage1_block1/project", 6), ("final", 14)]
    rows = [(ours, f"layers.{i}", f"layers.{i + 1}") for ours, i in places]
    for stage in range(2, 8):
        there = rf"layers.{stage + 6}.<1>.layers."
        rows += [(rf"stage{stage}_block(\d)/{layer}", f"{there}{i}", f"{there}{i + 1}") for layer, i in expanding]
    table = [
        (f"{ours}/{part}", name) for ours, *names in rows for part, name in zip(("conv", "norm"), names, strict=True)
    ]
    return (*table, (r"head", "classifier.1"))


TABLES: dict[str, Table] = {
    "torchvision.squeezenet1_0": squeezenet((3, 4, 5, 7, 8, 9, 10, 12)),
    "torchvision.squeezenet1_1": squeezenet((3, 4, 6, 7, 9, 10, 11, 12)),
    "pytorchcv.shufflenet_*": SHUFFLENET_V1,
    "torchvision.shufflenet_v2_*": SHUFFLENET_V2,
    "torchvision.mobilenet_v3_small": torchvision_mobilenet_v3((1, 2, 3, 2, 3), (1, 3, 4, 5)),
    "torchvision.mobilenet_v3_large": torchvision_mobilenet_v3((1, 2, 3, 4, 2, 3), (3, 5, 6)),
    "torchvision.mnasnet*": torchvision_mnasnet(),
    "timm.*mnasnet_*": TIMM_SE + TIMM_MOBILENET_V2,
    "timm.mobilenetv3_small_*": timm_mobilenet_v3(5),
    "timm.mobilenetv3_large_*": timm_mobilenet_v3(6),
}
