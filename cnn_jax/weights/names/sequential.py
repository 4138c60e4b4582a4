"""AlexNet, VGG and the MobileNets in the state dicts of torchvision and timm."""

from itertools import accumulate

from cnn_jax.weights.names.table import Table

ALEXNET: Table = (
    (r"conv1", "features.0"),
    (r"conv2", "features.3"),
    (r"conv3", "features.6"),
    (r"conv4", "features.8"),
    (r"conv5", "features.10"),
    (r"fc6", "classifier.1", 2),
    (r"fc7", "classifier.4"),
    (r"head", "classifier.6"),
)

VGG_DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
VGG_HEADS: dict[str, Table] = {
    "torchvision": ((r"fc6", "classifier.0", 2), (r"fc7", "classifier.3"), (r"head", "classifier.6")),
    "timm": ((r"fc6", "pre_logits.fc1"), (r"fc7", "pre_logits.fc2", 4), (r"head", "head.fc")),
}


def vgg(depth: int, batch_norm: bool) -> Table:
    """Layers, ReLUs and pools stand in one list, `features`."""
    table, place = [], 0
    for stage, convs in enumerate(VGG_DEPTHS[depth], start=1):
        for i in range(1, convs + 1):
            table.append((f"stage{stage}/conv{i}", f"features.{place}"))
            if batch_norm:
                table.append((f"stage{stage}/norm{i}", f"features.{place + 1}"))
            place += 2 + batch_norm
        place += 1
    return tuple(table)


TIMM_MOBILENET_ENDS: Table = (
    (r"stem/conv", "conv_stem"),
    (r"stem/norm", "bn1"),
    (r"final/conv", "conv_head"),
    (r"final/norm", "bn2"),
    (r"head", "classifier"),
)
TIMM_MOBILENET_V1: Table = (
    (r"stage(\d+)_block(\d+)/depthwise/conv", r"blocks.<1>.<2>.conv_dw"),
    (r"stage(\d+)_block(\d+)/depthwise/norm", r"blocks.<1>.<2>.bn1"),
    (r"stage(\d+)_block(\d+)/pointwise/conv", r"blocks.<1>.<2>.conv_pw"),
    (r"stage(\d+)_block(\d+)/pointwise/norm", r"blocks.<1>.<2>.bn2"),
    *TIMM_MOBILENET_ENDS,
)
TIMM_MOBILENET_V2: Table = (
    (r"stage1_block(\d+)/depthwise/conv", r"blocks.0.<1>.conv_dw"),  # no expansion in stage 1
    (r"stage1_block(\d+)/depthwise/norm", r"blocks.0.<1>.bn1"),
    (r"stage1_block(\d+)/project/conv", r"blocks.0.<1>.conv_pw"),
    (r"stage1_block(\d+)/project/norm", r"blocks.0.<1>.bn2"),
    (r"stage(\d+)_block(\d+)/expand/conv", r"blocks.<1>.<2>.conv_pw"),
    (r"stage(\d+)_block(\d+)/expand/norm", r"blocks.<1>.<2>.bn1"),
    (r"stage(\d+)_block(\d+)/depthwise/conv", r"blocks.<1>.<2>.conv_dw"),
    (r"stage(\d+)_block(\d+)/depthwise/norm", r"blocks.<1>.<2>.bn2"),
    (r"stage(\d+)_block(\d+)/project/conv", r"blocks.<1>.<2>.conv_pwl"),
    (r"stage(\d+)_block(\d+)/project/norm", r"blocks.<1>.<2>.bn3"),
    *TIMM_MOBILENET_ENDS,
)


def torchvision_mobilenet_v2() -> Table:
    """The stem, all blocks and the last convolution stand in one list, `features`."""
    blocks = (1, 2, 3, 4, 3, 3, 1)
    table = [(r"stem/conv", "features.0.0"), (r"stem/norm", "features.0.1")]
    for stage, (count, before) in enumerate(zip(blocks, accumulate(blocks, initial=1), strict=False), start=1):
        for j in range(count):
            here, there = f"stage{stage}_block{j + 1}", f"features.{before + j}.conv"
            inner = ("depthwise",) if stage == 1 else ("expand", "depthwise")
            for place, layer in enumerate(inner):
                table.append((f"{here}/{layer}/conv", f"{there}.{place}.0"))
                table.append((f"{here}/{layer}/norm", f"{there}.{place}.1"))
            table.append((f"{here}/project/conv", f"{there}.{len(inner)}"))
            table.append((f"{here}/project/norm", f"{there}.{len(inner) + 1}"))
    table += [(r"final/conv", "features.18.0"), (r"final/norm", "features.18.1"), (r"head", "classifier.1")]
    return tuple(table)


TABLES: dict[str, Table] = {
    "torchvision.alexnet": ALEXNET,
    **{
        f"{library}.vgg{depth}{'_bn' * batch_norm}": vgg(depth, batch_norm) + heads
        for library, heads in VGG_HEADS.items()
        for depth in VGG_DEPTHS
        for batch_norm in (False, True)
    },
    "timm.mobilenetv1_*": TIMM_MOBILENET_V1,
    "timm.mobilenetv2_*": TIMM_MOBILENET_V2,
    "torchvision.mobilenet_v2": torchvision_mobilenet_v2(),
}
