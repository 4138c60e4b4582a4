"""Residual, dense and squeeze-and-excitation networks in the state dicts of torchvision, timm and others."""

from cnn_jax.weights.names.table import Table

RESNET: Table = (
    (r"stem/conv", "conv1"),
    (r"stem/norm", "bn1"),
    (r"stage(\d+)_block(\d+)/conv(\d)/conv", r"layer\1.<2>.conv\3"),
    (r"stage(\d+)_block(\d+)/conv(\d)/norm", r"layer\1.<2>.bn\3"),
    (r"stage(\d+)_block(\d+)/shortcut/project/conv", r"layer\1.<2>.downsample.0"),
    (r"stage(\d+)_block(\d+)/shortcut/project/norm", r"layer\1.<2>.downsample.1"),
    (r"stage(\d+)_block(\d+)/se/reduce", r"layer\1.<2>.se.fc1", 4),
    (r"stage(\d+)_block(\d+)/se/expand", r"layer\1.<2>.se.fc2", 4),
    (r"head", "fc"),
)
DEEP_STEM: Table = (
    (r"stem1/conv", "conv1.0"),
    (r"stem1/norm", "conv1.1"),
    (r"stem2/conv", "conv1.3"),
    (r"stem2/norm", "conv1.4"),
    (r"stem3/conv", "conv1.6"),
    (r"stem3/norm", "bn1"),
)
AVERAGING_SHORTCUT: Table = (
    (r"stage(\d+)_block(\d+)/shortcut/project/conv", r"layer\1.<2>.downsample.1"),
    (r"stage(\d+)_block(\d+)/shortcut/project/norm", r"layer\1.<2>.downsample.2"),
)
RESNET_D: Table = DEEP_STEM + AVERAGING_SHORTCUT + RESNET
AKAMASTER: Table = ((r"head", "linear"), *RESNET)
PYTORCHCV_CIFAR: Table = (
    (r"stem/conv", "features.init_block.conv"),
    (r"stem/norm", "features.init_block.bn"),
    (r"stage(\d)_block(\d+)/conv(\d)/conv", r"features.stage\1.unit\2.body.conv\3.conv"),
    (r"stage(\d)_block(\d+)/conv(\d)/norm", r"features.stage\1.unit\2.body.conv\3.bn"),
    (r"stage(\d)_block(\d+)/shortcut/project/conv", r"features.stage\1.unit\2.identity_conv.conv"),
    (r"stage(\d)_block(\d+)/shortcut/project/norm", r"features.stage\1.unit\2.identity_conv.bn"),
    (r"stage(\d)_block(\d+)/se/reduce", r"features.stage\1.unit\2.se.conv1", 4),
    (r"stage(\d)_block(\d+)/se/expand", r"features.stage\1.unit\2.se.conv2", 4),
    (r"head", "output"),
)
RESNETV2: Table = (
    (r"stem", "stem.conv"),
    (r"stem([12])/(conv|norm)", r"stem.\2\1"),
    (r"stem3", "stem.conv3"),
    (r"stage(\d+)_block(\d+)/(conv|norm)(\d)", r"stages.<1>.blocks.<2>.\3\4"),
    (r"stage(\d+)_block(\d+)/project", r"stages.<1>.blocks.<2>.downsample.conv"),
    (r"norm", "norm"),
    (r"head", "head.fc", 4),
)
DENSENET: Table = (
    (r"stem/conv", "features.conv0"),
    (r"stem/norm", "features.norm0"),
    (r"stem(\d)/conv", "features.conv<1>"),
    (r"stem(\d)/norm", "features.norm<1>"),
    (r"stage(\d+)_layer(\d+)/(\w+)", r"features.denseblock\1.denselayer\2.\3"),
    (r"transition(\d+)/(\w+)", r"features.transition\1.\2"),
    (r"norm", "features.norm5"),
    (r"head", "classifier"),
)
LEGACY_SENET: Table = (
    (r"stem/conv", "layer0.conv1"),
    (r"stem/norm", "layer0.bn1"),
    (r"stem(\d)/conv", r"layer0.conv\1"),
    (r"stem(\d)/norm", r"layer0.bn\1"),
    (r"stage(\d+)_block(\d+)/se/reduce", r"layer\1.<2>.se_module.fc1", 4),
    (r"stage(\d+)_block(\d+)/se/expand", r"layer\1.<2>.se_module.fc2", 4),
    (r"head", "last_linear"),
    *RESNET,
)
DPN: Table = (
    (r"stem/conv", "features.conv1_1.conv"),
    (r"stem/norm", "features.conv1_1.bn"),
    *(
        row
        for stage in range(1, 5)
        for ours, theirs in (
            ("norm1", "c1x1_a.bn"),
            ("conv1", "c1x1_a.conv"),
            ("norm2", "c3x3_b.bn"),
            ("conv2", "c3x3_b.conv"),
            ("norm3", "c1x1_c.bn"),
            ("conv3", "c1x1_c.conv"),
            ("add", "c1x1_c1"),
            ("grow", "c1x1_c2"),
            ("project_norm", f"c1x1_w_s{min(stage, 2)}.bn"),  # named by its stride
            ("project", f"c1x1_w_s{min(stage, 2)}.conv"),
        )
        for row in ((rf"stage{stage}_block(\d+)/{ours}", rf"features.conv{stage + 1}_\1.{theirs}"),)
    ),
    (r"norm", "features.conv5_bn_ac.bn"),
    (r"head", "classifier", 4),
)

TABLES: dict[str, Table] = {
    "akamaster.resnet*": AKAMASTER,
    "pytorchcv.*_cifar10": PYTORCHCV_CIFAR,
    "timm.resnetv2_*": RESNETV2,
    "*.densenet*": DENSENET,
    "timm.dpn*": DPN,
    "timm.legacy_se*": LEGACY_SENET,
    "pretrainedmodels.se*": LEGACY_SENET,
    "timm.resnet*d": RESNET_D,
    "timm.resnext50d_*": RESNET_D,
    "timm.seresnext26d_*": RESNET_D,
    "timm.resnet*[cs]": DEEP_STEM + RESNET,
    "timm.senet154": DEEP_STEM + RESNET,
    "*.resnet[0-9]*": RESNET,
    "*.resnext*": RESNET,
    "*.wide_resnet*": RESNET,
    "timm.seres*": RESNET,
}
ALIASES: dict[str, tuple[tuple[str, str], ...]] = {
    # torchvision's own files still say denselayer1.norm.1.weight.
    "*.densenet*": ((r"(denselayer\d+\.(?:norm|conv))\.(\d)\.", r"\1\2."),),
}
