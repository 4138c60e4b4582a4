"""Squeeze-and-excitation networks: Hu, Shen, Albanie, Sun & Wu, "Squeeze-and-Excitation Networks"
(1709.01507): residual networks whose every block ends its branch in a gate for each channel.

`legacy_*` are the authors' nets as their Caffe weights were carried over to PyTorch: the max pool has
no padding, bottlenecks halve the image in the first 1x1 (ResNeXt's and SENet-154's in the 3x3), and
a gate's hidden width is C // 16. `legacy_seresnet18` and `34` are not the authors': they have a
second ReLU before the gate. The others are timm's: pool and stride as in resnet.py, and hidden
widths that are multiples of 8, which differ from C // 16 only in `seresnet18` and `34`. `*_cifar` have
projections where the paper does not say its shortcuts, as pytorchcv's.
"""

from functools import partial

import flax.linen as nn

from cnn_jax.models.card import CIFAR_MEAN, CIFAR_STD, ModelInfo
from cnn_jax.models.resnet import DEPTH, STRIDE_FIRST, BasicBlock, Bottleneck, ResNet, resnext
from cnn_jax.models.resnet_cifar import ResNetCifar

SEResNet = partial(ResNet, se_reduction=16, se_divisor=8)  # r = 16: sec. 6.1
SECifar = partial(ResNetCifar, shortcut="B", se_reduction=16)
CaffeSEResNet = partial(ResNet, se_reduction=16, caffe_pool=True)
LEGACY_BASIC = partial(BasicBlock, branch_act=nn.relu)
# Appendix: 64 groups, twice ResNeXt's width in the 3x3 but not in the 1x1 before it, three 3x3 in
# the stem, 3x3 projections, dropout 0.2 before the classifier.
SENET154 = {
    "stages": DEPTH[152],
    "block": partial(Bottleneck, groups=64, group_width=4, reduce_first=2),
    "stem": "deep",
    "stem_width": 128,
    "shortcut_kernel": 3,
    "dropout": 0.2,
}

hu = partial(ModelInfo, paper="Hu, Shen, Albanie, Sun & Wu, Squeeze-and-Excitation Networks (1709.01507)", year=2017)
timm = partial(hu, interpolation="bicubic")
cifar = partial(
    hu, section="sec. 6.1", input_size=(32, 32, 3), mean=CIFAR_MEAN, std=CIFAR_STD, crop=1.0, num_classes=10
)

# fmt: off
VARIANTS = (
    timm("seresnet18", partial(SEResNet, DEPTH[18]), "ResNet-18 with SE",
         "sec. 4", params=11_779_624, macs=1_814_161_408, references=("timm.seresnet18",)),
    timm("seresnet34", partial(SEResNet, DEPTH[34]), "ResNet-34 with SE",
         "sec. 4", params=21_960_416, macs=3_663_920_128, references=("timm.seresnet34",)),
    timm("seresnet50", partial(SEResNet, DEPTH[50], Bottleneck), "ResNet-50 with SE, stride in the 3x3",
         "table 1", params=28_088_024, macs=4_091_699_200, references=("timm.seresnet50",), crop=0.95),
    timm("seresnet101", partial(SEResNet, DEPTH[101], Bottleneck), "ResNet-101 with SE, stride in the 3x3",
         "table 2", params=49_326_872, macs=7_806_148_608, references=("timm.seresnet101",)),
    timm("seresnet152", partial(SEResNet, DEPTH[152], Bottleneck), "ResNet-152 with SE, stride in the 3x3",
         "table 2", params=66_821_848, macs=11_520_204_800, references=("timm.seresnet152",)),
    timm("seresnext50_32x4d", partial(SEResNet, DEPTH[50], resnext(32, 4)), "ResNeXt-50 with SE",
         "table 1", params=27_559_896, macs=4_232_994_816, references=("timm.seresnext50_32x4d",)),
    timm("seresnext101_32x4d", partial(SEResNet, DEPTH[101], resnext(32, 4)), "ResNeXt-101 with SE",
         "table 2", params=48_955_416, macs=7_974_739_968, references=("timm.seresnext101_32x4d",)),
    timm("seresnext101_32x8d", partial(SEResNet, DEPTH[101], resnext(32, 8)), "ResNeXt-101 with SE, groups 8 wide",
         "not in the paper", params=93_569_048, macs=16_418_758_656, references=("timm.seresnext101_32x8d",),
         crop=0.95),
    timm("seresnext101_64x4d", partial(SEResNet, DEPTH[101], resnext(64, 4)), "ResNeXt-101 with SE, 64 groups",
         "not in the paper", params=88_232_984, macs=15_465_013_248, references=("timm.seresnext101_64x4d",)),
    timm("seresnext26d_32x4d", partial(SEResNet, DEPTH[26], resnext(32, 4), stem="deep", shortcut="D"),
         "ResNeXt-26 with SE, three 3x3 in the stem and averaging shortcuts",
         "not in the paper", params=16_809_512, macs=2_711_740_416, references=("timm.seresnext26d_32x4d",)),
    timm("senet154", partial(SEResNet, **SENET154), "SENet-154, of the winning entry of ILSVRC 2017",
         "appendix", params=115_088_984, macs=20_688_363_520, references=("timm.senet154",)),
    timm("legacy_seresnet18", partial(CaffeSEResNet, DEPTH[18], LEGACY_BASIC), "ResNet-18 with SE, Caffe's pool",
         "sec. 4", params=11_778_592, macs=1_814_160_384, references=("timm.legacy_seresnet18",)),
    hu("legacy_seresnet34", partial(CaffeSEResNet, DEPTH[34], LEGACY_BASIC), "ResNet-34 with SE, Caffe's pool",
       "sec. 4", params=21_958_868, macs=3_663_918_592, references=("timm.legacy_seresnet34",)),
    hu("legacy_seresnet50", partial(CaffeSEResNet, DEPTH[50], STRIDE_FIRST), "ResNet-50 with SE, the authors'",
       "table 1", params=28_088_024, macs=3_860_488_192,
       references=("timm.legacy_seresnet50", "pretrainedmodels.se_resnet50")),
    hu("legacy_seresnet101", partial(CaffeSEResNet, DEPTH[101], STRIDE_FIRST), "ResNet-101 with SE, the authors'",
       "table 2", params=49_326_872, macs=7_574_937_600,
       references=("timm.legacy_seresnet101", "pretrainedmodels.se_resnet101")),
    hu("legacy_seresnet152", partial(CaffeSEResNet, DEPTH[152], STRIDE_FIRST), "ResNet-152 with SE, the authors'",
       "table 2", params=66_821_848, macs=11_288_993_792,
       references=("timm.legacy_seresnet152", "pretrainedmodels.se_resnet152")),
    timm("legacy_seresnext26_32x4d", partial(CaffeSEResNet, DEPTH[26], resnext(32, 4)),
         "ResNeXt-26 with SE, Caffe's pool",
         "sec. 4", params=16_790_280, macs=2_472_099_840, references=("timm.legacy_seresnext26_32x4d",)),
    hu("legacy_seresnext50_32x4d", partial(CaffeSEResNet, DEPTH[50], resnext(32, 4)),
       "ResNeXt-50 with SE, the authors'",
       "table 1", params=27_559_896, macs=4_232_994_816,
       references=("timm.legacy_seresnext50_32x4d", "pretrainedmodels.se_resnext50_32x4d")),
    hu("legacy_seresnext101_32x4d", partial(CaffeSEResNet, DEPTH[101], resnext(32, 4)),
       "ResNeXt-101 with SE, the authors'",
       "table 2", params=48_955_416, macs=7_974_739_968,
       references=("timm.legacy_seresnext101_32x4d", "pretrainedmodels.se_resnext101_32x4d")),
    hu("legacy_senet154", partial(CaffeSEResNet, **SENET154), "SENet-154, the authors'",
       "appendix", params=115_088_984, macs=20_688_363_520,
       references=("timm.legacy_senet154", "pretrainedmodels.senet154")),
    cifar("seresnet20_cifar", partial(SECifar, 3), "20 layers for CIFAR-10 with SE, projections",
          params=274_847, macs=40_815_200, references=("pytorchcv.seresnet20_cifar10",)),
    cifar("seresnet56_cifar", partial(SECifar, 9), "56 layers for CIFAR-10 with SE, projections",
          params=862_889, macs=125_753_888, references=("pytorchcv.seresnet56_cifar10",)),
    cifar("seresnet110_cifar", partial(SECifar, 18), "110 layers for CIFAR-10 with SE, projections",
          params=1_744_952, macs=253_161_920, references=("pytorchcv.seresnet110_cifar10",)),
)
