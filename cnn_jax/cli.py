"""The command `cnn-jax`: what networks there are and how good they are, and data sets.

    cnn-jax list 'res*'          names, sizes and published accuracies; --pretrained: published weights
    cnn-jax info resnet50        the card of a network
    cnn-jax summary resnet50     its layers: shapes, parameters, multiply-accumulates
    cnn-jax fit resnet50 --batch 256    what memory a training step takes, and the largest batch
    cnn-jax predict PHOTO.jpg DIR/ --model resnet50.tv_in1k    what is on photographs
    cnn-jax evaluate resnet50.tv_in1k --dataset NAME    accuracy, likelihood and calibration
    cnn-jax visualize gradcam PHOTO.jpg --model resnet50.tv_in1k --target tabby    what a network looks at
    cnn-jax compare RUN RUN      curves of several runs in one picture
    cnn-jax push hf://user/birds --run DIR    weights as timm has them, on the Hub or in a folder
    cnn-jax export resnet50.tv_in1k --format onnx    a network with its weights, for other programs
    cnn-jax prepare fashion_mnist     a TFDS data set, fetched or made of files that are here
    cnn-jax inspect fashion_mnist     what is in a data set, and a picture of it
    cnn-jax demo --run DIR       a page to draw on or drop an image at
    cnn-jax doctor               whether this machine is set up as it should be
    cnn-jax completion bash      what makes a shell complete all this

Exit codes: 0 done; 1 some images could not be read; 2 a mistake, told in one line; 130 after Ctrl-C.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from cnn_jax.commands.compare import add_compare
from cnn_jax.commands.listing import fit_command, info_command, list_command, summary_command
from cnn_jax.commands.visualize import add_visualize
from cnn_jax.errors import UserError, of_system
from cnn_jax.platform import ask_for_huge_pages

GREETING = """cnn_jax: the classic convolutional networks in JAX. Five things to try:

  cnn-jax list 'res*'               which networks there are, how large, how good
  cnn-jax summary resnet50          one of them, layer by layer
  python train.py                   LeNet-5 learns 5,000 digits that are in the package, half a minute on a laptop
  cnn-jax predict PHOTO.jpg --model resnet50.tv_in1k    what is on a photograph
  cnn-jax doctor                    whether this machine is set up as it should be

cnn-jax --help shows all commands, cnn-jax COMMAND --help their options. Where uv made the environment,
`uv run` goes in front."""


class _Parser(argparse.ArgumentParser):
    """Tells a mistake as everything else here does: in one line."""

    def error(self, message: str) -> NoReturn:
        message = " ".join(message.split())
        raise UserError(f"{message}; --help shows all options")


def predict_command(**options) -> Iterator[str]:
    """What commands.predict says."""
    from cnn_jax.commands.predict import predict_command
    from cnn_jax.compilation import keep_programs

    keep_programs()
    return predict_command(**options)


def push_command(**options) -> str:
    """What commands.push says."""
    from cnn_jax.commands.push import push

    return push(**options)


def evaluate_command(**options) -> str:
    """What commands.evaluate says."""
    from cnn_jax.commands.evaluate import evaluate_command
    from cnn_jax.compilation import keep_programs

    keep_programs()
    return evaluate_command(**options)


def export_command(**options) -> str:
    """What commands.export says."""
    from cnn_jax.commands.export import export_command

    return export_command(**options)


def prepare_command(name: str, from_files: Path | None, data_dir: str | None) -> str:
    """Prepares a TFDS data set unless it is; a line that says where it is."""
    from cnn_jax.data.prepare import prepare
    from cnn_jax.data.tfds_sets import open_tfds

    builder = prepare(name, data_dir, from_files)
    sizes = ", ".join(f"{len(source()):,} {split}" for split, source in open_tfds(builder, name).splits.items())
    return f"{name} is prepared in {builder.data_dir}: {sizes} images"


def inspect_command(**options) -> str:
    """What commands.inspect says."""
    from cnn_jax.commands.inspect import inspect

    return inspect(**options)


def doctor_command() -> Iterator[str]:
    """What commands.doctor says."""
    from cnn_jax.commands.doctor import doctor

    return doctor()


def demo_command(**options) -> str:
    """Serves the page of commands.demo until Ctrl-C."""
    from cnn_jax.commands.demo import demo_command
    from cnn_jax.compilation import keep_programs

    keep_programs()
    return demo_command(**options)


def completion_command(shell: str) -> str:
    """A script for the shell, which completes commands and options."""
    import shtab

    return shtab.complete(_parser(), shell)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a positive whole number, not {text!r}")
    return int(text)


def _gibibytes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"must be a number of GiB above 0, not {text!r}")
    return value


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be a share above 0, at most 1, not {text!r}")
    return value


def _add_push(commands) -> None:
    send = commands.add_parser("push", help="weights as timm has them, in a folder or on the Hub")
    send.add_argument("to", metavar="TO", help="a folder, or hf://user/name")
    network = send.add_mutually_exclusive_group(required=True)
    network.add_argument("--model", metavar="NAME", help="a tag such as resnet50.tv_in1k, see `list --pretrained`")
    network.add_argument("--run", metavar="DIR", dest="folder", help="what train.py left, also on gs://")
    send.add_argument("--weights", metavar="FILE", help="of the model, where they are not published ones")
    send.add_argument("--private", action="store_true", help="a new repository is the user's alone")
    send.set_defaults(run=push_command)


def _add_predict(commands) -> None:
    look = commands.add_parser("predict", help="what is on photographs")
    look.add_argument("images", nargs="*", metavar="IMAGE", help="files, and folders of them at any depth")
    network = look.add_mutually_exclusive_group()
    network.add_argument("--model", metavar="NAME", help="a tag such as resnet50.tv_in1k, see `list --pretrained`")
    network.add_argument("--run", metavar="DIR", dest="folder", help="what train.py left, also on gs://")
    look.add_argument("--weights", metavar="FILE", help="of the model, where they are not published ones")
    look.add_argument("--top", type=_positive, default=5, metavar="CLASSES", help="so many of each image")
    look.add_argument("--batch-size", type=_positive, default=32, metavar="IMAGES", help="a step")
    form = look.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_const", dest="form", const="json", help="an object a line")
    form.add_argument("--csv", action="store_const", dest="form", const="csv")
    look.set_defaults(run=predict_command, form="table")


def _add_export(commands) -> None:
    files = commands.add_parser("export", help="a network with its weights, as files for other programs")
    files.add_argument("source", help="published weights, such as resnet50.tv_in1k, or the folder of a run")
    files.add_argument("--weights", metavar="FILE", help="of the network that is named, where it is no published tag")
    files.add_argument("--format", choices=("stablehlo", "onnx", "safetensors"), default="stablehlo")
    files.add_argument("--image-size", type=_positive, metavar="PIXELS", help="the weights', or the run's")
    files.add_argument("--out", type=Path, metavar="DIR", help="exported-SOURCE if not given")
    files.set_defaults(run=export_command)


def _parser() -> _Parser:
    parser = _Parser(prog="cnn-jax", description="The classic convolutional networks in JAX.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    table = commands.add_parser(
        "list",
        help="networks by name, with sizes and published accuracy",
        epilog="top-1 % is the best that is published of one centre crop on ImageNet-1k's validation images, after "
        "training on ImageNet-1k alone; figures of other protocols and other data are in `cnn-jax info NAME`.",
    )
    table.add_argument("pattern", nargs="?", default="*", help="a glob such as 'res*'")
    what = table.add_mutually_exclusive_group()
    what.add_argument("--markdown", action="store_true", help="all of them with sources, as docs/models.md has it")
    what.add_argument("--pretrained", action="store_true", help="their published weights, and what images these want")
    table.set_defaults(run=list_command)
    card = commands.add_parser("info", help="what is known of a network")
    card.add_argument("name")
    card.set_defaults(run=info_command)
    layers = commands.add_parser("summary", help="layer by layer: shapes, parameters, multiply-accumulates")
    layers.add_argument("name")
    layers.add_argument("--image-size", type=_positive, metavar="PIXELS", help="the card's if not given")
    layers.add_argument("--batch", type=_positive, default=1, metavar="IMAGES")
    layers.add_argument("--stem", help="'cifar' for images of 28 to 64 pixels")
    layers.set_defaults(run=summary_command)
    fit = commands.add_parser("fit", help="memory of a training step, and the largest batch that fits")
    fit.add_argument("name", help="the network")
    fit.add_argument("--batch", type=_positive, metavar="IMAGES", help="a step; the recipe's, or 64")
    fit.add_argument("--image-size", type=_positive, metavar="PIXELS", help="the recipe's, or the card's")
    fit.add_argument("--recipe", help="where all else comes from; plain SGD with momentum if not given")
    fit.add_argument("--dtype", choices=("float32", "bfloat16"), help="compute type")
    fit.add_argument("--optimizer", choices=("sgd", "rmsprop", "adamw", "lamb"))
    fit.add_argument("--accumulate", type=_positive, metavar="PARTS", help="that a step is computed in")
    fit.add_argument("--remat", nargs="+", metavar="BLOCK", help="globs such as 'stage1*': computed again, not kept")
    fit.add_argument("--memory", type=_gibibytes, metavar="GIB", help="of a device; this machine's if not given")
    fit.set_defaults(run=fit_command)
    _add_predict(commands)
    add_visualize(commands)
    add_compare(commands)
    _add_push(commands)
    test = commands.add_parser("evaluate", help="accuracy, likelihood and calibration on a data set")
    test.add_argument("name", help="published weights, such as resnet50.tv_in1k, or a network")
    network = test.add_mutually_exclusive_group()
    network.add_argument(
        "--weights", metavar="TAG", help="a network's, published, or a FILE: .safetensors, .npz, .pth, .h5 or .keras"
    )
    network.add_argument("--run", metavar="DIR", dest="folder", help="what train.py left, also on gs://")
    test.add_argument("--dataset", metavar="NAME", help="the run's if not given")
    test.add_argument("--split", help="the run's, or test")
    test.add_argument("--data-dir", metavar="DIR", help="where prepared sets lie")
    test.add_argument(
        "--protocol",
        help="fit (images of one size: framed or shrunk, as train.py does), center (all others), ten_crop, "
        "googlenet_144, dense, multi_scale, multi_scale_jittered, multi_scale_resnet; see docs/evaluation.md",
    )
    test.add_argument("--batch-size", type=_positive, default=64, metavar="INPUTS", help="of the network, a step")
    test.add_argument("--image-size", type=_positive, metavar="PIXELS", help="the run's, or the weights'")
    shorter = test.add_mutually_exclusive_group()
    shorter.add_argument(
        "--resize", type=_positive, metavar="PIXELS", help="shorter side before the crop; the weights'"
    )
    shorter.add_argument("--crop", type=_share, metavar="SHARE", help="of the shorter side, instead of --resize")
    test.add_argument("--interpolation", choices=("bilinear", "bicubic"), help="of the resize; the weights'")
    test.add_argument("--bad-images", choices=("error", "skip"), default="error", help="skip: left out, counted")
    test.add_argument("--out", type=Path, metavar="DIR", help="for metrics.json, classes.csv and two pictures")
    test.set_defaults(run=evaluate_command)
    _add_export(commands)
    make = commands.add_parser("prepare", help="prepare a TFDS data set, from the network or from files")
    make.add_argument("name", help="as TFDS has it: fashion_mnist, cifar10, imagenet2012")
    make.add_argument("--from-files", type=Path, metavar="DIR", help="the files of its authors; see docs/data.md")
    make.add_argument("--data-dir", metavar="DIR", help="where prepared sets lie; TFDS's place if not given")
    make.set_defaults(run=prepare_command)
    look = commands.add_parser("inspect", help="sizes, classes, mean and deviation of a data set, and a picture")
    look.add_argument("name", metavar="dataset", help="a TFDS set, folder:DIR, FILE.npz or synthetic:HxWxCLASSES")
    look.add_argument("--split", help="such as test or train[:10%%]; train if not given")
    look.add_argument("--data-dir", metavar="DIR", help="where prepared sets lie, also on gs://")
    look.add_argument("--limit", type=_positive, metavar="IMAGES", help="look at so many, evenly spaced")
    look.add_argument("--out", type=Path, metavar="FILE.png", help="the picture; inspect-NAME.png if not given")
    look.set_defaults(run=inspect_command)
    check = commands.add_parser("doctor", help="devices, versions, folders, and a convolution against NumPy")
    check.set_defaults(run=doctor_command)
    page = commands.add_parser("demo", help="a page to draw on or drop an image at, on this machine alone")
    network = page.add_mutually_exclusive_group()
    network.add_argument("--model", metavar="NAME", help="a tag such as resnet50.tv_in1k, see `list --pretrained`")
    network.add_argument("--run", metavar="DIR", dest="folder", help="what train.py left, also on gs://")
    page.add_argument("--weights", metavar="FILE", help="of the model, where they are not published ones")
    page.add_argument("--port", type=_positive, metavar="NUMBER", help="the first that is free from 7860 on")
    page.set_defaults(run=demo_command)
    complete = commands.add_parser("completion", help="a script that makes a shell complete commands and options")
    complete.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    complete.epilog = 'bash: eval "$(cnn-jax completion bash)" in ~/.bashrc; zsh: the same in ~/.zshrc'
    complete.set_defaults(run=completion_command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; what it says goes to stdout, a mistake to stderr."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv:
        print(GREETING)
        return 0
    try:
        options = vars(_parser().parse_args(argv))
        run = options.pop("run")
        del options["command"]
        said = run(**options)
        for line in [said] if isinstance(said, str) else said:
            print(line, flush=True)
        return 0
    except UserError as error:
        print(f"cnn-jax: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # such as `cnn-jax list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        told = of_system(f"cannot read or write {error.filename or 'the output'}", error)
        print(f"cnn-jax: {told}", file=sys.stderr)
        return told.exit_code
    except KeyboardInterrupt:
        print("cnn-jax: stopped", file=sys.stderr)
        return 130


def run() -> NoReturn:
    """The installed command."""
    if sys.argv[1:2] in (["evaluate"], ["predict"], ["visualize"]):  # which computes for long
        ask_for_huge_pages()
    code = main()
    if "jax" in sys.modules:
        from cnn_jax.distributed import leave

        leave(code)
    sys.stdout.flush()
    os._exit(code)  # not by way of JAX's own exit, which waits for processes that may wait for this one


if __name__ == "__main__":
    run()
