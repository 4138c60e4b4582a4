"""Name tables of the Inception networks."""

from functools import partial

from cnn_jax.weights.names.table import Table


def layers(ours: str, theirs: str) -> Table:
    """Two rows, for a convolution and its norm."""
    return (rf"{ours}/conv", rf"{theirs}.conv"), (rf"{ours}/norm", rf"{theirs}.bn")


def caffe_layers(ours: str, theirs: str) -> Table:
    """As `layers`, with both names flat."""
    return (rf"{ours}/conv", theirs), (rf"{ours}/norm", rf"{theirs}_bn")


def branches(ours: str, theirs: str, roles: dict[str, str]) -> Table:
    """The convolutions of a module by their roles, with the place of each in the module there."""
    return tuple(row for role, place in roles.items() for row in layers(f"{ours}/{role}", f"{theirs}.{place}"))


def chain(place: str, *roles: str, first: int = 0) -> dict[str, str]:
    """Roles whose places are PLACE0, PLACE1 and so on, or from `first`."""
    return {role: f"{place}{i}" for i, role in enumerate(roles, start=first)}


THREE = ("three_reduce", "three")
DOUBLE = ("double_reduce", "double1", "double2")
SEVEN = ("seven_reduce", "seven_row", "seven_column")
DOUBLE_SEVEN = ("double_reduce", "double_column1", "double_row1", "double_column2", "double_row2")

GOOGLENET: Table = (
    (r"conv1/conv", "conv1.conv"),
    (r"conv1/norm", "conv1.bn"),
    (r"conv2_reduce/conv", "conv2.conv"),
    (r"conv2_reduce/norm", "conv2.bn"),
    (r"conv2/conv", "conv3.conv"),
    (r"conv2/norm", "conv3.bn"),
    *branches(
        r"inception_(..)",
        r"inception\1",
        {"one": "branch1", "pool_proj": "branch4.1"}
        | chain("branch2.", *THREE)
        | chain("branch3.", "five_reduce", "five"),
    ),
    (r"aux(\d)/reduce/conv", r"aux\1.conv.conv"),
    (r"aux(\d)/reduce/norm", r"aux\1.conv.bn"),
    (r"aux(\d)/fc", r"aux\1.fc1", 2),
    (r"aux(\d)/head", r"aux\1.fc2"),
    (r"head", "fc"),
)

BN_INCEPTION: Table = (
    *caffe_layers("conv1", "conv1_7x7_s2"),
    *caffe_layers("conv2_reduce", "conv2_3x3_reduce"),
    *caffe_layers("conv2", "conv2_3x3"),
    *caffe_layers("inception_(..)/one", r"inception_\1_1x1"),
    *caffe_layers("inception_(..)/three(_reduce)?", r"inception_\1_3x3\2"),
    *caffe_layers("inception_(..)/double_reduce", r"inception_\1_double_3x3_reduce"),
    *caffe_layers(r"inception_(..)/double(\d)", r"inception_\1_double_3x3_\2"),
    *caffe_layers("inception_(..)/pool_proj", r"inception_\1_pool_proj"),
    (r"head", "last_linear"),
)

# torchvision counts the steps of a branch from 1.
from_1 = partial(chain, first=1)
INCEPTION_V3: Table = (
    *layers("conv_(1a|2a|2b|4a)", r"Conv2d_\1_3x3"),
    *layers("conv_3b", "Conv2d_3b_1x1"),
    *layers("mixed_(..)/one", r"Mixed_\1.branch1x1"),
    *layers("mixed_(..)/pool_proj", r"Mixed_\1.branch_pool"),
    *branches("mixed_(5.)", r"Mixed_\1", from_1("branch5x5_", "five_reduce", "five")),
    *branches("mixed_6a", "Mixed_6a", {"three": "branch3x3"}),
    *branches("mixed_(5.|6a)", r"Mixed_\1", from_1("branch3x3dbl_", *DOUBLE)),
    *branches("mixed_(6.)", r"Mixed_\1", from_1("branch7x7_", *SEVEN) | from_1("branch7x7dbl_", *DOUBLE_SEVEN)),
    *branches("mixed_7a", "Mixed_7a", from_1("branch3x3_", *THREE) | from_1("branch7x7x3_", *SEVEN, "seven_three")),
    *branches(
        "mixed_(7.)",
        r"Mixed_\1",
        {"three_reduce": "branch3x3_1", "three_row": "branch3x3_2a", "three_column": "branch3x3_2b"}
        | {"double_reduce": "branch3x3dbl_1", "double": "branch3x3dbl_2"}
        | {"double_row": "branch3x3dbl_3a", "double_column": "branch3x3dbl_3b"},
    ),
    *layers("aux1/reduce", "AuxLogits.conv0"),
    *layers("aux1/conv", "AuxLogits.conv1"),
    (r"aux1/head", "AuxLogits.fc"),
    (r"head", "fc"),
)

# timm numbers the modules of Inception-v4 through; its modules C have no lists, but names such as branch1_1a.
ENDS = {"one": "branch0", "pool_proj": "branch3.1"}
V4_A = ENDS | chain("branch1.", *THREE) | chain("branch2.", *DOUBLE)
V4_REDUCTION_A = {"three": "branch0"} | chain("branch1.", *DOUBLE)
V4_B = ENDS | chain("branch1.", *SEVEN) | chain("branch2.", *DOUBLE_SEVEN)
V4_REDUCTION_B = chain("branch0.", *THREE) | chain("branch1.", *SEVEN, "seven_three")
V4_C = (
    ENDS
    | {"three_reduce": "branch1_0", "three_row": "branch1_1a", "three_column": "branch1_1b"}
    | chain("branch2_", *DOUBLE_SEVEN[:3])
    | {"double_row2": "branch2_3a", "double_column2": "branch2_3b"}
)
V4_MODULES = {
    "mixed_3a": {"three": "conv"},
    "mixed_4a": V4_REDUCTION_B,
    "mixed_5a": {"three": "conv"},
    **{f"mixed_5{letter}": V4_A for letter in "bcde"},
    "mixed_6a": V4_REDUCTION_A,
    **{f"mixed_6{letter}": V4_B for letter in "bcdefgh"},
    "mixed_7a": V4_REDUCTION_B,
    **{f"mixed_7{letter}": V4_C for letter in "bcd"},
}
INCEPTION_V4: Table = (
    *layers("conv_1a", "features.0"),
    *layers("conv_2a", "features.1"),
    *layers("conv_2b", "features.2"),
    *(
        row
        for i, (module, roles) in enumerate(V4_MODULES.items(), start=3)
        for row in branches(module, f"features.{i}", roles)
    ),
    (r"head", "last_linear"),
)


def inception_resnet(block35: str, block17: str, block8: str, last: int) -> Table:
    """Table of an Inception-ResNet from the names of its three stages; block8 `last` stands apart."""
    modules = {
        "mixed_5b": ENDS | chain("branch1.", "five_reduce", "five") | chain("branch2.", *DOUBLE),
        "mixed_6a": V4_REDUCTION_A,
        "mixed_7a": chain("branch0.", "three_wide_reduce", "three_wide")
        | chain("branch1.", "three_narrow_reduce", "three_narrow")
        | chain("branch2.", *DOUBLE),
    }
    one = {"one": "branch0"}
    factorised = one | chain("branch1.", "three_reduce", "three_row", "three_column")
    blocks = (
        (
            r"block35_(\d+)",
            rf"{block35}.<1>",
            one | chain("branch1.", *THREE) | chain("branch2.", *DOUBLE),
        ),
        (r"block17_(\d+)", rf"{block17}.<1>", one | chain("branch1.", *SEVEN)),
        (f"(block8)_{last}", r"\1", factorised),
        (r"block8_(\d+)", rf"{block8}.<1>", factorised),
    )
    return (
        *layers(r"conv_(\d\w)", r"conv2d_\1"),
        *(row for module, roles in modules.items() for row in branches(module, module, roles)),
        *(row for ours, theirs, roles in blocks for row in branches(ours, theirs, roles)),
        *((f"{ours}/project", f"{theirs}.conv2d") for ours, theirs, _ in blocks),
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
