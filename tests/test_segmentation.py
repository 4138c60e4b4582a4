"""U-Net, DeepLab v3 and the feature pyramid against other libraries' with the same weights; losses and scores."""

import re
from functools import partial

import flax.linen as nn
import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from quick_jit import quick_apply, quick_jit
from test_golden import assert_within

from cnn_jax import UserError, create_model, import_state_dict, segmentation
from cnn_jax.layers import BatchNorm
from cnn_jax.models.resnet_cifar import ResNetCifar
from cnn_jax.models.structure import structure
from cnn_jax.segmentation import (
    DeepLabV3,
    FeaturePyramid,
    UNet,
    dice_loss,
    grown,
    maps_by_stride,
    pixel_confusion,
    pixel_cross_entropy,
    scores,
)
from cnn_jax.transfer import layer_names

with np.load(golden_files.FOLDER / "segmentation" / "outputs.npz") as file:
    GOLDEN = dict(file)

# Where the layers of the heads stand in torchvision and segmentation_models_pytorch.
NAMES = (
    (r"classifier\.0\.convs\.0\.(\d)", "aspp/point"),
    (r"classifier\.0\.convs\.([123])\.(\d)", r"aspp/atrous\1"),
    (r"classifier\.0\.convs\.4\.(\d)", "aspp/image"),
    (r"classifier\.0\.project\.(\d)", "aspp/project"),
    (r"classifier\.([12])", "refine"),
    (r"classifier\.4|segmentation_head\.0", "head"),
    (r"decoder\.blocks\.(\d)\.(conv\d)\.(\d)", lambda m: f"up{int(m[1]) + 1}/{m[2]}"),
    (r"fpn\.(inner|layer)_blocks\.(\d)\.0", lambda m: f"{m[1].replace('layer', 'outer')}{4 * 2 ** int(m[2])}"),
)
LEAVES = {"running_mean": "mean", "running_var": "var"}


def path_of(key, shape):
    """Collection and path of a reference's key."""
    layer, _, leaf = key.rpartition(".")
    (name,) = (re.sub(pattern, to, layer) for pattern, to in NAMES if re.fullmatch(pattern, layer))
    if leaf in LEAVES:
        return ("batch_stats", *name.split("/"), "norm", LEAVES[leaf])
    plain = name == "head" or name[:5] in ("inner", "outer")
    norm = (leaf == "bias" and not plain) or (len(shape) == 1 and leaf == "weight")
    part = () if plain else ("norm",) if norm else ("conv",)
    return (
        "params",
        *name.split("/"),
        *part,
        "scale" if leaf == "weight" and norm else leaf.replace("weight", "kernel"),
    )


def golden(case, backbone):
    """The arrays of a case, and variables by its weight rule, the backbone's those of its own golden file."""
    arrays = {name.partition("/")[2]: value for name, value in GOLDEN.items() if name.startswith(f"{case}/")}
    variables = flatten_dict(
        import_state_dict(backbone, golden_files.weights(golden_files.load(f"torchvision.{backbone}")))
    )
    variables = {path: value for path, value in variables.items() if path[1] != "head"}
    for key, value in golden_files.weights(arrays).items():
        if not key.endswith("num_batches_tracked"):
            variables[path_of(key, value.shape)] = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
    return arrays, unflatten_dict(variables)


def sampled(output):
    """The 16x16 places of logits that the file keeps."""
    return output[:, 1::4, 2::4]


def backbone(name, **options):
    return create_model(name, num_classes=0, **options)


@pytest.mark.parametrize(
    ("place", "rates"), [pytest.param(0, (12, 24, 36), marks=pytest.mark.slow), (1, (2, 3, 5))]
)  # the map is 8x8, so the library's own rates see its rim alone
def test_deeplab_gives_torchvisions_logits(place, rates):
    expected, variables = golden("deeplabv3_resnet50", "resnet50")
    model = DeepLabV3(backbone("resnet50", output_stride=8), 5, rates)
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == expected["num_params"]
    logits = quick_apply(model, variables, golden_files.images(0, 2, 64), train=False)
    assert logits.shape == (2, 64, 64, 5)
    assert_within(sampled(logits), expected[f"output{place}"], max(2e-5, 10 * expected["noise"][0]))


def test_unet_gives_the_logits_of_segmentation_models_pytorch():
    expected, variables = golden("unet_resnet18", "resnet18")
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == expected["num_params"]
    logits = quick_apply(UNet(backbone("resnet18"), 5), variables, golden_files.images(0, 2, 64), train=False)
    assert logits.shape == (2, 64, 64, 5)
    assert_within(sampled(logits), expected["output0"], max(2e-5, 10 * expected["noise"][0]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "network", "model"),
    [
        ("unet_resnet18", "resnet18", UNet(backbone("resnet18"), 5)),
        (
            "deeplabv3_resnet50",
            "resnet50",
            DeepLabV3(backbone("resnet50", output_stride=8), 5, (12, 24, 36), dropout=0.0),
        ),
    ],
)
def test_gradients_are_the_references(case, network, model):
    """Of the mean over all pixels that are not ignored, the same number in each image: rows 9 and on."""
    expected, variables = golden(case, network)
    images = golden_files.images(2, 4, 64)
    masks = np.random.default_rng(3).integers(0, 5, (4, 64, 64))
    masks[:, :9] = 255

    @jax.jit
    def gradient(variables):
        def loss(params):
            logits, _ = model.apply(variables | {"params": params}, images, train=True, mutable=["batch_stats"])
            return pixel_cross_entropy(logits, masks).mean()

        return jax.value_and_grad(loss)(variables["params"])

    loss, gradients = gradient(variables)
    np.testing.assert_allclose(loss, expected["loss"], rtol=1e-4)
    found = flatten_dict({"params": gradients})
    shapes = dict(zip(expected["keys"].tolist(), expected["shapes"].tolist(), strict=True))
    largest = expected["grad_norms"].max()
    for key, norm in zip(expected["grad_keys"].tolist(), expected["grad_norms"].tolist(), strict=True):
        stem = key.endswith("coder.conv1.weight") or key == "backbone.conv1.weight"
        path = ("params", "stem", "conv", "kernel") if stem else path_of(key, shapes[key].split(","))
        difference = abs(np.linalg.norm(found[path]) - norm)
        assert difference < max(1e-3, 10 * expected["noise"][1]) * max(norm, largest / 1000), key


def test_the_feature_pyramid_gives_torchvisions_maps():
    expected, variables = golden("fpn_resnet18", "resnet18")
    model = FeaturePyramid(backbone("resnet18"), 16, (4, 8, 16, 32, 64))
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == expected["num_params"]
    maps = quick_apply(model, variables, golden_files.images(0, 2, 64), train=False)
    assert list(maps) == [4, 8, 16, 32, 64]
    for number, (stride, found) in enumerate(maps.items()):
        assert found.shape == (2, 64 // stride, 64 // stride, 16)
        assert_within(found, expected[f"output{number}"], max(2e-5, 10 * expected["noise"][0]))


slow = partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("name", "options", "size", "channels"),
    [
        # As segmentation_models_pytorch's encoders have them, whose VGG leaves stride 1 out.
        ("resnet18", {}, (64, 64), {2: 64, 4: 64, 8: 128, 16: 256, 32: 512}),
        slow("mobilenet_v2", {}, (64, 64), {2: 16, 4: 24, 8: 32, 16: 96, 32: 1280}),
        ("vgg11", {}, (64, 64), {1: 64, 2: 128, 4: 256, 8: 512, 16: 512, 32: 512}),
        slow("densenet121", {}, (64, 64), {2: 64, 4: 256, 8: 512, 16: 1024, 32: 1024}),
        ("resnet18", {"stem": "cifar"}, (32, 32), {1: 64, 2: 128, 4: 256, 8: 512}),
        ("resnet18", {"output_stride": 8}, (64, 64), {2: 64, 4: 64, 8: 512}),
        ("resnet18", {}, (75, 50), {2: 64, 4: 64, 8: 128, 16: 256, 32: 512}),  # maps of 38, 19, 10, 5 and 3 rows
        slow("inception_v3", {}, (128, 96), {2: 64, 4: 192, 8: 288, 16: 768, 32: 2048}),  # nothing is padded
        slow("nin_imagenet", {}, (64, 64), {4: 96, 8: 256, 16: 384, 32: 1024}),
    ],
)
def test_any_backbone_becomes_a_unet_with_its_maps_beside(name, options, size, channels, monkeypatch):
    found = {}

    def seen(*args, **kwargs):
        maps = maps_by_stride(*args, **kwargs)
        found.update({stride: x.shape[-1] for stride, x in maps.items()})
        return maps

    monkeypatch.setattr(segmentation, "maps_by_stride", seen)
    made = structure(UNet(backbone(name, **options), 3, (8, 8, 8, 8, 8)), (*size, 3))
    assert found == channels and made.output == (*size, 3)
    steps = sum(layer.startswith("up") for layer in made.variables["params"])
    assert steps == len(channels) - 1 + min(channels).bit_length() - 1
    assert not {"fc6", "fc7"} & set(made.variables["params"])  # behind the last map


def test_a_decoder_draws_outlines_by_a_finer_map():
    """DeepLab v3+: 48 channels of stride 4 beside the 16 of the pyramid, and logits of stride 4."""
    made = structure(DeepLabV3(backbone("resnet18"), 3, (2,), 16, decoder=4), (64, 64, 3))
    shapes = {layer.path: layer.shape for layer in made.layers}
    assert shapes["low/conv"] == (16, 16, 48) and shapes["aspp/project/conv"] == (2, 2, 16)
    assert shapes["refine/conv"] == shapes["refine2/conv"] == (16, 16, 16) and shapes["head"] == (16, 16, 3)
    assert made.variables["params"]["refine"]["conv"]["kernel"].shape == (3, 3, 64, 16)
    assert made.output == (64, 64, 3)


def test_layers_of_backbone_and_head_stand_side_by_side():
    """So that a run may start from a classifier's, and freeze until one of them."""
    names = layer_names(UNet(backbone("resnet18"), 3), (64, 64, 3))
    stages = [f"stage{stage}_block{block}" for stage in (1, 2, 3, 4) for block in (1, 2)]
    assert names == ("stem", *stages, "up1", "up2", "up3", "up4", "up5", "head")


@pytest.mark.parametrize("head", [partial(UNet, widths=(8, 8)), partial(DeepLabV3, rates=(2,), channels=8)])
def test_a_head_has_the_backbones_norm_and_compute_type(head):
    norm = partial(BatchNorm, momentum=0.5)
    model = head(ResNetCifar(1, num_classes=0, norm=norm, dtype=jnp.bfloat16), num_classes=3)
    found = set()

    def watch(call, args, kwargs, context):
        if isinstance(context.module, BatchNorm) and context.module.path[0] in ("up1", "up2", "aspp", "refine"):
            found.add((context.module.momentum, context.module.dtype, args[0].dtype))
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        logits, _ = jax.eval_shape(
            partial(model.init_with_output, train=False), jax.random.key(0), jnp.ones((2, 16, 16, 3))
        )
    assert found == {(0.5, jnp.bfloat16, jnp.dtype("bfloat16"))}
    assert logits.dtype == jnp.float32 and logits.shape == (2, 16, 16, 3)


def test_what_is_no_backbone_is_told():
    image = jnp.zeros((1, 64, 64, 3))

    def made(model):
        return jax.eval_shape(partial(model.init, train=False), jax.random.key(0), image)

    with pytest.raises(
        UserError, match=r"backbone must be a network of create_model\(..., num_classes=0\), not ResNet"
    ):
        UNet(create_model("resnet18"), 3)
    with pytest.raises(UserError, match="backbone must be a network"):
        DeepLabV3("resnet18", 3)
    with pytest.raises(UserError, match="widths has 3 numbers, and from ResNet to the image it is 5"):
        made(UNet(backbone("resnet18"), 3, (32, 16, 8)))
    with pytest.raises(UserError, match="ResNet has no map of stride 1; its strides are 2, 4, 8, 16, 32"):
        made(FeaturePyramid(backbone("resnet18"), 8, (1, 2)))
    with pytest.raises(UserError, match="ResNet has no map of stride 1; its strides are 2, 4, 8, 16, 32"):
        made(DeepLabV3(backbone("resnet18"), 3, decoder=1))
    with pytest.raises(UserError, match="ResNet has no map of stride 128"):
        made(FeaturePyramid(backbone("resnet18"), 8, (16, 32, 128)))
    with pytest.raises(UserError, match="rates must be a tuple of whole numbers above 0"):
        DeepLabV3(backbone("resnet18"), 3, (6, 0))

    class Flat(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            return nn.Dense(3)(x.mean((1, 2)))

    with pytest.raises(UserError, match="U-Net needs maps of several sizes, and Flat has 0"):
        made(UNet(Flat(), 3))
    with pytest.raises(UserError, match="DeepLab needs a map of features, and Flat has none"):
        made(DeepLabV3(Flat(), 3))
    with pytest.raises(UserError, match="Flat has no map of stride 4; it has none"):
        made(FeaturePyramid(Flat()))


def test_maps_grow_as_pytorchs_nearest():
    """torch.nn.functional.interpolate(arange(3), size=7) is 0, 0, 0, 1, 1, 2, 2; of size 6 each twice."""
    x = jnp.arange(3.0)[None, :, None, None] * jnp.ones((1, 3, 2, 1))
    grow = quick_jit(grown, static_argnums=1)
    np.testing.assert_array_equal(grow(x, (7, 2))[0, :, 0, 0], [0, 0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(grow(x, (6, 4))[0, :, 3, 0], [0, 0, 1, 1, 2, 2])


RNG = np.random.default_rng(0)
LOGITS = RNG.standard_normal((2, 4, 6, 3)).astype(np.float32)
MASKS = RNG.integers(0, 3, (2, 4, 6))
MASKS[:, 0, :3] = 255


def test_cross_entropy_is_pytorchs():
    """torch.nn.functional.cross_entropy(..., ignore_index=255) of each image (PyTorch 2.14)."""
    np.testing.assert_allclose(
        quick_jit(pixel_cross_entropy)(LOGITS, MASKS), [1.2878060638560318, 1.1066183157163165], rtol=1e-6
    )


def test_dice_loss_is_that_of_segmentation_models_pytorch():
    """DiceLoss("multiclass", ignore_index=255) of each image (0.6.0); it divides by all classes, not by those there."""
    dice = quick_jit(dice_loss)
    np.testing.assert_allclose(dice(LOGITS, MASKS), [0.6565136199591937, 0.6178373562657256], rtol=1e-5)
    without = np.where(MASKS == 2, 0, MASKS)
    np.testing.assert_allclose(dice(LOGITS, without), [0.665219774586548, 0.6494550440330165], rtol=1e-5)


def test_ignored_pixels_move_no_loss_and_an_image_of_them_has_none():
    moved = LOGITS + 3 * RNG.standard_normal(LOGITS.shape) * (MASKS == 255)[..., None]
    nothing = np.full_like(MASKS, 255)
    for loss in (pixel_cross_entropy, dice_loss):
        value_and_grad = quick_jit(jax.value_and_grad(lambda logits, masks: loss(logits, masks).sum()))  # noqa: B023
        np.testing.assert_allclose(value_and_grad(moved, MASKS)[0], value_and_grad(LOGITS, MASKS)[0], rtol=1e-6)
        value, gradient = value_and_grad(LOGITS, nothing)
        assert value == 0 and np.all(gradient == 0)


def test_confusion_and_scores_are_those_of_segmentation_models_pytorch():
    """metrics.get_stats(..., ignore_index=255): tp [4, 0, 4], fp [3, 3, 7], fn [5, 5, 3], and [0, 6, 5], ...; 0.6.0."""
    confusion = np.asarray(quick_jit(partial(pixel_confusion, classes=3))(LOGITS.argmax(-1), MASKS))
    assert confusion.shape == (2, 3, 3) and confusion.dtype == np.int32
    right = np.stack([np.diag(matrix) for matrix in confusion])
    np.testing.assert_array_equal(right, [[4, 0, 4], [0, 6, 5]])
    np.testing.assert_array_equal(confusion.sum(1) - right, [[3, 3, 7], [2, 4, 4]])
    np.testing.assert_array_equal(confusion.sum(2) - right, [[5, 5, 3], [5, 4, 1]])
    found = scores(confusion.sum(0))
    np.testing.assert_allclose(found["iou"], [4 / 19, 6 / 22, 9 / 24])
    np.testing.assert_allclose(found["dice"], [0.3478, 0.4286, 0.5455], atol=5e-5)
    assert found["mean_iou"] == pytest.approx((4 / 19 + 6 / 22 + 9 / 24) / 3)
    assert found["accuracy"] == pytest.approx(19 / 42)


def test_a_class_that_does_not_occur_counts_in_no_mean():
    found = scores(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
    assert np.isnan(found["iou"][2]) and np.isnan(found["dice"][2])
    assert found["mean_iou"] == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert found["mean_dice"] == pytest.approx((6 / 7 + 8 / 9) / 2)
