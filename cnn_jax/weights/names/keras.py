"""The networks of keras.applications in Keras's own layout.

A name is a layer's; behind it stand kernel, bias, gamma, beta, moving_mean or moving_variance. "/depthwise" and
"/pointwise" are the two kernels of a separable convolution.
"""

from cnn_jax.weights.names.inception import DOUBLE, DOUBLE_SEVEN, SEVEN, THREE
from cnn_jax.weights.names.table import Table

HEAD: Table = ((r"head", "predictions"),)


def layers(ours: str, conv: str, norm: str) -> Table:
    """Two rows, for a convolution and its norm."""
    return (rf"{ours}/conv", conv), (rf"{ours}/norm", norm)


def separable(ours: str, theirs: str, norm: str) -> Table:
    """Three rows, for a separable convolution and its norm."""
    return (
        (rf"{ours}/depthwise", f"{theirs}/depthwise"),
        (rf"{ours}/pointwise", f"{theirs}/pointwise"),
        (rf"{ours}/norm", norm),
    )


VGG: Table = ((r"stage(\d)/conv(\d)", r"block\1_conv\2"), (r"fc6", "fc1", 2), (r"fc7", "fc2"), *HEAD)

RESNET: Table = (
    *layers("stem", "conv1_conv", "conv1_bn"),
    *(
        row
        for i in range(1, 5)
        for ours, theirs in ((r"conv(\d)", rf"conv{i + 1}_block\1_\2"), ("shortcut/project", rf"conv{i + 1}_block\1_0"))
        for row in layers(rf"stage{i}_block(\d+)/{ours}", f"{theirs}_conv", f"{theirs}_bn")
    ),
    *HEAD,
)

DENSENET: Table = (
    *layers("stem", "conv1_conv", "conv1_bn"),
    *(
        row
        for i in range(1, 5)
        for row in (
            (rf"stage{i}_layer(\d+)/norm1", rf"conv{i + 1}_block\1_0_bn"),
            (rf"stage{i}_layer(\d+)/conv1", rf"conv{i + 1}_block\1_1_conv"),
            (rf"stage{i}_layer(\d+)/norm2", rf"conv{i + 1}_block\1_1_bn"),
            (rf"stage{i}_layer(\d+)/conv2", rf"conv{i + 1}_block\1_2_conv"),
            (rf"transition{i}/norm", f"pool{i + 1}_bn"),
            (rf"transition{i}/conv", f"pool{i + 1}_conv"),
        )
    ),
    (r"norm", "bn"),
    *HEAD,
)

XCEPTION: Table = (
    *layers(r"conv([12])", r"block1_conv\1", r"block1_conv\1_bn"),
    *(
        row
        for i in range(1, 13)
        for row in separable(rf"block{i}/conv(\d)", rf"block{i + 1}_sepconv\1", rf"block{i + 1}_sepconv\1_bn")
    ),
    *separable("conv3", "block14_sepconv1", "block14_sepconv1_bn"),
    *separable("conv4", "block14_sepconv2", "block14_sepconv2_bn"),
    *(
        row
        for number, i in enumerate((1, 2, 3, 12), start=1)
        for row in layers(f"block{i}/project", f"conv2d_{number}", f"batch_normalization_{number}")
    ),
    *HEAD,
)


def numbered(modules: dict[str, tuple[str, ...]], named: Table) -> Table:
    """Keras counts the convolutions of an Inception network in the order in which they are made, and the norms."""
    convs = [f"{module}/{role}".rstrip("/") for module, roles in modules.items() for role in roles]
    pairs = (layers(ours, f"conv2d_{i}", f"batch_normalization_{i}") for i, ours in enumerate(convs, start=1))
    return (*(row for pair in pairs for row in pair), *named, *HEAD)


STEM = {f"conv_{place}": ("",) for place in ("1a", "2a", "2b", "3b", "4a")}
FIVE = ("five_reduce", "five")
INCEPTION_V3: Table = numbered(
    STEM
    | {f"mixed_5{letter}": ("one", *FIVE, *DOUBLE, "pool_proj") for letter in "bcd"}
    | {"mixed_6a": ("three", *DOUBLE)}
    | {f"mixed_6{letter}": ("one", *SEVEN, *DOUBLE_SEVEN, "pool_proj") for letter in "bcde"}
    | {"mixed_7a": (*THREE, *SEVEN, "seven_three")}
    | {
        f"mixed_7{letter}": (
            *("one", "three_reduce", "three_row", "three_column"),
            *("double_reduce", "double", "double_row", "double_column", "pool_proj"),
        )
        for letter in "bc"
    },
    (),
)
INCEPTION_RESNET_V2: Table = numbered(
    STEM
    | {"mixed_5b": ("one", *FIVE, *DOUBLE, "pool_proj")}
    | {f"block35_{i}": ("one", *THREE, *DOUBLE) for i in range(1, 11)}
    | {"mixed_6a": ("three", *DOUBLE)}
    | {f"block17_{i}": ("one", *SEVEN) for i in range(1, 21)}
    | {"mixed_7a": ("three_wide_reduce", "three_wide", "three_narrow_reduce", "three_narrow", *DOUBLE)}
    | {f"block8_{i}": ("one", "three_reduce", "three_row", "three_column") for i in range(1, 11)},
    ((r"(block\d+_\d+)/project", r"\1_conv"), *layers("conv_7b", "conv_7b", "conv_7b_bn")),
)


def blocks(counts: tuple[int, ...], first: int) -> list[tuple[str, int]]:
    """Blocks counted through over all stages, from `first`."""
    names = (f"stage{i}_block{j}" for i, blocks in enumerate(counts, start=1) for j in range(1, blocks + 1))
    return [(name, i) for i, name in enumerate(names, start=first)]


MOBILENET: Table = (
    *layers("stem", "conv1", "conv1_bn"),
    *(
        row
        for block, i in blocks((1, 2, 2, 6, 2), 1)
        for ours, theirs in (("depthwise", f"conv_dw_{i}"), ("pointwise", f"conv_pw_{i}"))
        for row in layers(f"{block}/{ours}", theirs, f"{theirs}_bn")
    ),
    (r"head", "conv_preds", 4),
)
MOBILENET_V2: Table = (
    *layers("stem", "Conv1", "bn_Conv1"),
    *layers(r"stage1_block1/(depthwise|project)", r"expanded_conv_\1", r"expanded_conv_\1_BN"),
    *(
        row
        for block, i in blocks((1, 2, 3, 4, 3, 3, 1), 0)
        for row in layers(rf"{block}/(\w+)", rf"block_{i}_\1", rf"block_{i}_\1_BN")
    ),
    *layers("final", "Conv_1", "Conv_1_bn"),
    *HEAD,
)


def mobilenet_v3(counts: tuple[int, ...]) -> Table:
    """Blocks are counted through, all but the first; fully connected layers are 1x1 convolutions."""
    rows = [*layers("stem", "conv", "conv_bn"), *layers("final", "conv_1", "conv_1_bn")]
    for block, i in blocks(counts, 0):
        there = f"expanded_conv_{i}" if i else "expanded_conv"
        rows += [
            (f"{block}/se/reduce", f"{there}_squeeze_excite_conv", 4),
            (f"{block}/se/expand", f"{there}_squeeze_excite_conv_1", 4),
            *layers(rf"{block}/(\w+)", rf"{there}_\1", rf"{there}_\1_bn"),
        ]
    return (*rows, (r"hidden", "conv_2", 4), (r"head", "logits", 4))


def nasnet(cells: int) -> Table:
    """Of `cells` normal cells a stage; they are numbered through, and behind a reduction one number is left out."""
    normal = {f"stage{i}_cell{j}": (i - 1) * cells + j - (i == 1) for i in (1, 2, 3) for j in range(1, cells + 1)}
    reduction = {"stem_cell1": "stem_1", "stem_cell2": "stem_2"}
    reduction |= {f"stage{i}_reduce": f"reduce_{(i - 1) * cells}" for i in (2, 3)}
    rows = [*layers("stem", "stem_conv1", "stem_bn1"), *HEAD]
    for kind, names, fifth in (("normal", normal, 5), ("reduction", reduction, 4)):  # left4 is that of the fifth sum
        for ours, cell in names.items():
            rows += [
                *layers(f"{ours}/current", f"{kind}_conv_1_{cell}", f"{kind}_bn_1_{cell}"),
                *layers(f"{ours}/previous", f"adjust_conv_projection_{cell}", f"adjust_bn_{cell}"),
                (f"{ours}/previous/even", f"adjust_conv_1_{cell}"),
                (f"{ours}/previous/odd", f"adjust_conv_2_{cell}"),
                (rf"{ours}/sum5_left/norm(\d)", rf"separable_conv_\1_bn_{kind}_left{fifth}_{cell}"),
                (rf"{ours}/sum5_left/(\w+)(\d)", rf"separable_conv_\2_{kind}_left{fifth}_{cell}/\1"),
                (rf"{ours}/sum(\d)_(left|right)/norm(\d)", rf"separable_conv_\3_bn_{kind}_\2\1_{cell}"),
                (rf"{ours}/sum(\d)_(left|right)/(\w+)(\d)", rf"separable_conv_\4_{kind}_\2\1_{cell}/\3"),
            ]
    return tuple(rows)


TABLES: dict[str, Table] = {
    "keras.VGG*": VGG,
    "keras.ResNet*": RESNET,
    "keras.DenseNet*": DENSENET,
    "keras.InceptionV3": INCEPTION_V3,
    "keras.InceptionResNetV2": INCEPTION_RESNET_V2,
    "keras.Xception": XCEPTION,
    "keras.MobileNetV3Small*": mobilenet_v3((1, 2, 3, 2, 3)),
    "keras.MobileNetV3Large*": mobilenet_v3((1, 2, 3, 4, 2, 3)),
    "keras.MobileNetV2*": MOBILENET_V2,
    "keras.MobileNet*": MOBILENET,
    "keras.NASNetMobile": nasnet(4),
    "keras.NASNetLarge": nasnet(6),
}
# The published files are older than Keras 3 and its names.
HEADS = (r"^(?:Logits|fc1000|probs)/", "predictions/")
DEPTHWISE = (r"/depthwise_kernel$", "/kernel")
ALIASES: dict[str, tuple[tuple[str, str], ...]] = {
    "keras.VGG*": ((r"/.*_W(_\d+)?$", "/kernel"), (r"/.*_b(_\d+)?$", "/bias")),
    "keras.ResNet*": (HEADS,),
    "keras.DenseNet*": (HEADS, (r"^conv1/(conv|bn)/", r"conv1_\1/")),
    "keras.MobileNetV3*": (
        DEPTHWISE,
        (r"^Conv", "conv"),
        (r"^Logits/", "logits/"),
        (r"^(expanded_conv(?:_\d+)?)/", r"\1_"),
        (r"squeeze_excite/Conv", "squeeze_excite_conv"),
        (r"/BatchNorm/", "_bn/"),
    ),
    "keras.MobileNet*": (HEADS, DEPTHWISE),
}
