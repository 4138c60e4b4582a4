"""Name tables of the Inception networks."""

from cnn_jax.weights.names.table import Table

GOOGLENET: Table = (
    (r"conv1/conv", "conv1.conv"),
    (r"conv1/norm", "conv1.bn"),
    (r"conv2_reduce/conv", "conv2.conv"),
    (r"conv2_reduce/norm", "conv2.bn"),
    (r"conv2/conv", "conv3.conv"),
    (r"conv2/norm", "conv3.bn"),
    (r"inception_(..)/branch1_conv1/conv", r"inception\1.branch1.conv"),
    (r"inception_(..)/branch1_conv1/norm", r"inception\1.branch1.bn"),
    (r"inception_(..)/branch4_conv1/conv", r"inception\1.branch4.1.conv"),
    (r"inception_(..)/branch4_conv1/norm", r"inception\1.branch4.1.bn"),
    (r"inception_(..)/branch(\d)_conv(\d)/conv", r"inception\1.branch\2.<3>.conv"),
    (r"inception_(..)/branch(\d)_conv(\d)/norm", r"inception\1.branch\2.<3>.bn"),
    (r"aux(\d)/reduce/conv", r"aux\1.conv.conv"),
    (r"aux(\d)/reduce/norm", r"aux\1.conv.bn"),
    (r"aux(\d)/fc", r"aux\1.fc1", 2),
    (r"aux(\d)/head", r"aux\1.fc2"),
    (r"head", "fc"),
)


def layers(ours: str, theirs: str) -> Table:
    """Two rows, for a convolution and its norm."""
    return (rf"{ours}/conv", rf"{theirs}.conv"), (rf"{ours}/norm", rf"{theirs}.bn")


def caffe_layers(ours: str, theirs: str) -> Table:
    """As `layers`, with both names flat."""
    return (rf"{ours}/conv", theirs), (rf"{ours}/norm", rf"{theirs}_bn")


BN_INCEPTION: Table = (
    *caffe_layers("conv1", "conv1_7x7_s2"),
    *caffe_layers("conv2_reduce", "conv2_3x3_reduce"),
    *caffe_layers("conv2", "conv2_3x3"),
    # Modules 3c and 4e begin with the 3x3 branch, the others with the 1x1.
    *caffe_layers("inception_(3c|4e)/branch1_conv1", r"inception_\1_3x3_reduce"),
    *caffe_layers("inception_(3c|4e)/branch1_conv2", r"inception_\1_3x3"),
    *caffe_layers("inception_(3c|4e)/branch2_conv1", r"inception_\1_double_3x3_reduce"),
    *caffe_layers(r"inception_(3c|4e)/branch2_conv(\d)", r"inception_\1_double_3x3_<2>"),
    *caffe_layers("inception_(..)/branch1_conv1", r"inception_\1_1x1"),
    *caffe_layers("inception_(..)/branch2_conv1", r"inception_\1_3x3_reduce"),
    *caffe_layers("inception_(..)/branch2_conv2", r"inception_\1_3x3"),
    *caffe_layers("inception_(..)/branch3_conv1", r"inception_\1_double_3x3_reduce"),
    *caffe_layers(r"inception_(..)/branch3_conv(\d)", r"inception_\1_double_3x3_<2>"),
    *caffe_layers("inception_(..)/branch4_conv1", r"inception_\1_pool_proj"),
    (r"head", "last_linear"),
)

INCEPTION_V3: Table = (
    *layers("conv_(1a|2a|2b|4a)", r"Conv2d_\1_3x3"),
    *layers("conv_3b", "Conv2d_3b_1x1"),
    *layers("mixed_6a/branch1_conv1", "Mixed_6a.branch3x3"),
    *layers(r"mixed_6a/branch2_conv(\d)", r"Mixed_6a.branch3x3dbl_\1"),
    *layers(r"mixed_7a/branch1_conv(\d)", r"Mixed_7a.branch3x3_\1"),
    *layers(r"mixed_7a/branch2_conv(\d)", r"Mixed_7a.branch7x7x3_\1"),
    *layers("mixed_(..)/branch1_conv1", r"Mixed_\1.branch1x1"),
    *layers("mixed_(..)/branch4_conv1", r"Mixed_\1.branch_pool"),
    *layers(r"mixed_(5.)/branch2_conv(\d)", r"Mixed_\1.branch5x5_\2"),
    *layers(r"mixed_(5.)/branch3_conv(\d)", r"Mixed_\1.branch3x3dbl_\2"),
    *layers(r"mixed_(6.)/branch2_conv(\d)", r"Mixed_\1.branch7x7_\2"),
    *layers(r"mixed_(6.)/branch3_conv(\d)", r"Mixed_\1.branch7x7dbl_\2"),
    *layers(r"mixed_(7.)/branch2_conv(\w+)", r"Mixed_\1.branch3x3_\2"),
    *layers(r"mixed_(7.)/branch3_conv(\w+)", r"Mixed_\1.branch3x3dbl_\2"),
    *layers("aux1/reduce", "AuxLogits.conv0"),
    *layers("aux1/conv", "AuxLogits.conv1"),
    (r"aux1/head", "AuxLogits.fc"),
    (r"head", "fc"),
)

# timm numbers the modules of Inception-v4 through.
V4_MODULES = ("5b", "5c", "5d", "5e", "6a", "6b", "6c", "6d", "6e", "6f", "6g", "6h", "7a", "7b", "7c", "7d")
INCEPTION_V4: Table = (
    *layers("conv_1a", "features.0"),
    *layers("conv_2a", "features.1"),
    *layers("conv_2b", "features.2"),
    *layers("mixed_3a/branch2_conv1", "features.3.conv"),
    *layers(r"mixed_4a/branch(\d)_conv(\d)", "features.4.branch<1>.<2>"),
    *layers("mixed_5a/branch1_conv1", "features.5.conv"),
    *(
        row
        for i, name in enumerate(V4_MODULES, start=6)
        for row in (
            *(layers(f"mixed_{name}/branch1_conv1", f"features.{i}.branch0") if name != "7a" else ()),
            *layers(f"mixed_{name}/branch4_conv1", f"features.{i}.branch3.1"),
            *layers(
                rf"mixed_{name}/branch(\d)_conv(\d)",
                f"features.{i}.branch<1>.<2>" if name < "7b" else f"features.{i}.branch<1>_<2>",
            ),
            *layers(rf"mixed_{name}/branch(\d)_conv(\d)([ab])", rf"features.{i}.branch<1>_<2>\3"),
        )
    ),
    (r"head", "last_linear"),
)


def inception_resnet(block35: str, block17: str, block8: str, last: int) -> Table:
    """Table of an Inception-ResNet from the names of its three stages; block8 `last` stands apart."""
    return (
        *layers(r"conv_(\d\w)", r"conv2d_\1"),
        *layers("mixed_5b/branch4_conv1", "mixed_5b.branch3.1"),
        *layers("mixed_(5b|6a)/branch1_conv1", r"mixed_\1.branch0"),
        *layers(r"mixed_(\d\w)/branch(\d)_conv(\d)", r"mixed_\1.branch<2>.<3>"),
        *(
            row
            for ours, theirs in (
                (f"(block8)_{last}", r"\1"),
                (r"block35_(\d+)", rf"{block35}.<1>"),
                (r"block17_(\d+)", rf"{block17}.<1>"),
                (r"block8_(\d+)", rf"{block8}.<1>"),
            )
            for row in (
                *layers(f"{ours}/branch1_conv1", f"{theirs}.branch0"),
                *layers(rf"{ours}/branch(\d)_conv(\d)", f"{theirs}.branch<2>.<3>"),
                (f"{ours}/project", f"{theirs}.conv2d"),
            )
        ),
        (r"embed", "last_linear"),
        (r"embed_norm", "last_bn"),
    )


XCEPTION: Table = (
    (r"conv([12])/conv", r"conv\1"),
    (r"conv([12])/norm", r"bn\1"),
    (r"conv([34])/depthwise", r"conv\1.conv1"),
    (r"conv([34])/pointwise", r"conv\1.pointwise"),
    (r"conv([34])/norm", r"bn\1"),
    (r"block(\d+)/project/conv", r"block\1.skip"),
    (r"block(\d+)/project/norm", r"block\1.skipbn"),
    *(
        row
        # Block 1 lacks the ReLU before its first convolution; thereafter they come in threes.
        for block, first in ((r"block(1)", 0), (r"block(\d+)", 1))
        for i in (1, 2, 3)
        for row in (
            (rf"{block}/conv{i}/depthwise", rf"block\1.rep.{first + 3 * i - 3}.conv1"),
            (rf"{block}/conv{i}/pointwise", rf"block\1.rep.{first + 3 * i - 3}.pointwise"),
            (rf"{block}/conv{i}/norm", rf"block\1.rep.{first + 3 * i - 2}"),
        )
    ),
    (r"head", "fc"),
)

ALIGNED_XCEPTION: Table = (
    *layers("conv([12])", "stem.<1>"),
    *layers(r"block(\d+)/project", "blocks.<1>.shortcut"),
    (r"block(\d+)/conv(\d)_depthwise/conv", r"blocks.<1>.stack.conv\2.conv_dw"),
    (r"block(\d+)/conv(\d)_depthwise/norm", r"blocks.<1>.stack.conv\2.bn_dw"),
    (r"block(\d+)/conv(\d)_pointwise/conv", r"blocks.<1>.stack.conv\2.conv_pw"),
    (r"block(\d+)/conv(\d)_pointwise/norm", r"blocks.<1>.stack.conv\2.bn_pw"),
    (r"head", "head.fc"),
)

TABLES: dict[str, Table] = {
    "torchvision.googlenet": GOOGLENET,
    "pretrainedmodels.bninception": BN_INCEPTION,
    "*.inception_v3": INCEPTION_V3,
    "timm.inception_v4": INCEPTION_V4,
    "timm.inception_resnet_v2": (*inception_resnet("repeat", "repeat_1", "repeat_2", 10), (r"head", "classif")),
    "facenet_pytorch.*": (*inception_resnet("repeat_1", "repeat_2", "repeat_3", 6), (r"head", "logits")),
    "timm.legacy_xception": XCEPTION,
    "timm.xception*": ALIGNED_XCEPTION,
}
