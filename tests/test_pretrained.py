"""load_pretrained from a Hub and a file server on loopback, which serve synthetic weights."""

import hashlib
import io
import os
import pickle
import shutil
import struct
import zipfile
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fake_hub import FakeHub
from huggingface_hub import constants
from safetensors.numpy import save

from cnn_jax import UserError, export_state_dict, load_pretrained, model_info, save_pretrained, weight_card
from cnn_jax.models import FAMILIES
from cnn_jax.models.structure import structure
from cnn_jax.weights import WEIGHT_CARDS

HUB, URL = "mobilenetv3_small_050.lamb_in1k", "squeezenet1_1.tv_in1k"


def synthetic(tag) -> tuple[dict, bytes]:
    """Variables of the network of these weights, drawn at random, and a file of them in the layout of their card."""
    card = WEIGHT_CARDS[tag]
    info = model_info(card.model)
    rng = np.random.default_rng(0)
    shapes = structure(info.build(num_classes=card.num_classes), info.input_size).variables
    drawn = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), shapes)
    arrays = export_state_dict(card.model, drawn, reference=card.reference)
    return drawn, save({key: np.ascontiguousarray(array) for key, array in arrays.items()})


class Elsewhere:
    """A folder that stands for the Hub and all other addresses, and caches that are empty at first."""

    def __init__(self, root, patch):
        self.root, self.patch, self.served = root, patch, root / "served"
        self.caches = (root / "hub", root / "own" / "cnn_jax" / "weights")
        patch.setenv("XDG_CACHE_HOME", str(root / "own"))
        patch.setattr(constants, "HF_HUB_CACHE", str(root / "hub"))

    def serve(self, **how) -> FakeHub:
        server = FakeHub(self.served, **how)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        self.patch.setattr(constants, "ENDPOINT", server.url)
        self.patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        for tag, card in WEIGHT_CARDS.items():
            if card.hub is None:
                self.patch.setitem(WEIGHT_CARDS, tag, replace(card, url=f"{server.url}/{card.url.rpartition('/')[2]}"))
        return server

    def put(self, tag, content, sha256=None):
        """Serves these weights; a file with its checksum in its name gets `sha256`, if that is not to be true."""
        card = WEIGHT_CARDS[tag]
        file = self.served / f"{card.hub}/model.safetensors"
        if card.hub is None:
            digits = (sha256 or hashlib.sha256(content).hexdigest())[:8]
            url = card.url.replace(f"-{card.sha256}.", f"-{digits}.")
            self.patch.setitem(WEIGHT_CARDS, tag, replace(card, url=url))
            file = self.served / url.rpartition("/")[2]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    def kept(self) -> list[str]:
        """What the caches hold of weights: files but for the Hub's own notes."""
        notes = ("CACHEDIR.TAG", "main")
        found = [path for cache in self.caches for path in cache.rglob("*") if path.is_file() or path.is_symlink()]
        return [path.name for path in found if path.name not in notes and path.suffix != ".lock"]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    return Elsewhere(tmp_path, monkeypatch)


def fetch(elsewhere, tag, content, **how):
    """Loads weights from a server that has this content for them."""
    with elsewhere.serve(**how) as server:
        elsewhere.put(tag, content)
        return load_pretrained(tag), server.asked


@pytest.fixture(scope="module")
def made():
    """Variables and a file for the two tags."""
    return {tag: synthetic(tag) for tag in (HUB, URL)}


@pytest.mark.parametrize("tag", [HUB, URL])
def test_weights_are_fetched_once_and_load_again_without_a_network(elsewhere, monkeypatch, made, tag):
    drawn, content = made[tag]
    (model, variables), _ = fetch(elsewhere, tag, content)
    assert model.num_classes == 1000
    jax.tree.map(np.testing.assert_array_equal, variables, drawn)
    load_pretrained(tag)  # the server is gone
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    model, variables = load_pretrained(tag, dtype=jnp.bfloat16)
    jax.tree.map(np.testing.assert_array_equal, variables, drawn)
    assert model.dtype == jnp.bfloat16 and len(elsewhere.kept()) == (2 if tag == HUB else 1)  # a file, and a link to it


@pytest.mark.parametrize("tag", [HUB, URL])
@pytest.mark.parametrize(("offline", "why"), [(True, "HF_HUB_OFFLINE is set"), (False, "Connection refused")])
def test_without_a_network_a_line_says_what_to_do(elsewhere, monkeypatch, made, tag, offline, why):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    elsewhere.serve().server_close()  # nobody answers there
    elsewhere.put(tag, b"")
    card, place = WEIGHT_CARDS[tag], elsewhere.caches[1]
    with pytest.raises(UserError) as error:
        load_pretrained(tag)
    name, size = (f"{HUB}.safetensors", 6) if tag == HUB else (card.url.rpartition("/")[2], 5)
    assert str(error.value).endswith(f"{why}; put it, about {size} MB, into {place} as {name}")
    assert (f"{card.hub}/resolve/main/model.safetensors" if tag == HUB else card.url) in str(error.value)
    place.mkdir(parents=True, exist_ok=True)
    (place / name).write_bytes(made[tag][1])
    jax.tree.map(np.testing.assert_array_equal, load_pretrained(tag)[1], made[tag][0])


def test_a_cache_that_cannot_be_written_is_told(elsewhere, made):
    (elsewhere.root / "own").write_text("a file where a folder should be")
    with pytest.raises(UserError, match=r"cannot write .*/squeezenet1_1-\w{8}\.pth: Not a directory"):
        fetch(elsewhere, URL, made[URL][1])


@pytest.mark.parametrize("tag", [HUB, URL])
def test_a_file_with_another_checksum_is_refused_and_not_kept(elsewhere, made, tag):
    with elsewhere.serve(etag="0" * 64) as server:
        elsewhere.put(tag, made[tag][1], sha256="0" * 64)
        with pytest.raises(
            UserError, match=rf"{server.url}.* is not the file that was published: its sha256 is \w{{64}}, not 0"
        ):
            load_pretrained(tag)
    assert elsewhere.kept() == []


@pytest.mark.parametrize("tag", [HUB, URL])
def test_a_download_that_is_cut_is_never_used(elsewhere, monkeypatch, made, tag):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the attempts of the Hub's client
    with elsewhere.serve(send=1_000_000):
        elsewhere.put(tag, made[tag][1])
        with pytest.raises(UserError) as error:
            load_pretrained(tag)
    assert "\n" not in str(error.value)
    part = [] if tag == HUB else [f"{WEIGHT_CARDS[tag].url.rpartition('/')[2]}.part"]
    kept = [name for name in elsewhere.kept() if not name.endswith(".incomplete")]  # what the Hub's client 1.0 leaves
    assert kept == part  # the Hub's client begins again
    jax.tree.map(np.testing.assert_array_equal, fetch(elsewhere, tag, made[tag][1])[0][1], made[tag][0])


class Exploit:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


def pickled(trace) -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({"conv1.weight": Exploit(trace)}, protocol=2))
    return file.getvalue()


@cache
def bomb() -> bytes:
    np.savez_compressed(file := io.BytesIO(), weight=np.zeros(1 << 27, np.uint8))
    return file.getvalue()


@pytest.mark.parametrize("tag", [HUB, URL])
@pytest.mark.parametrize("what", ["truncated", "pickle", "header", "bomb", "page"])
def test_a_file_that_is_not_what_it_should_be_is_refused_and_not_kept(elsewhere, made, tmp_path, tag, what):
    trace = tmp_path / "trace"
    content, line = {
        "truncated": (made[tag][1][:-1], "damaged or not a weight file"),
        "pickle": (pickled(trace), r"refused: it holds \w+.system, not tensors"),
        "header": (struct.pack("<Q", 2 << 30) + b"{}", "damaged: a header of 2,147,483,648 bytes in a file of 10"),
        "bomb": (bomb() if what == "bomb" else b"", "refused: its .* bytes would become 134,217,856"),
        "page": (b"<html>log in first</html>", r"is none of \.safetensors, \.npz, PyTorch's \.pth"),
    }[what]
    with pytest.raises(UserError, match=line) as error:
        fetch(elsewhere, tag, content)
    assert "\n" not in str(error.value)
    assert elsewhere.kept() == [] and not trace.exists()


def test_another_head_is_drawn_and_said_once(elsewhere, made):
    drawn, content = made[URL]
    fetch(elsewhere, URL, content)
    with pytest.warns(UserWarning, match="the weights are for 1000 classes; the head for 10 is newly drawn") as told:
        model, variables = load_pretrained(URL, num_classes=10)
    assert len(told) == 1 and told[0].filename == __file__
    assert model.num_classes == 10 and variables["params"]["head"]["bias"].shape == (10,)
    jax.tree.map(np.testing.assert_array_equal, variables["params"]["fire2"], drawn["params"]["fire2"])
    with pytest.warns(UserWarning, match="the head is left out"):
        assert "head" not in load_pretrained(URL, num_classes=0)[1]["params"]


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_other_channels_adapt_the_first_kernel_as_timm_does(elsewhere, made, channels):
    """Summed for one; else repeated in turn, and scaled so that equal channels give what they gave."""
    fetch(elsewhere, URL, made[URL][1])
    kernel = made[URL][0]["params"]["conv1"]["kernel"]
    expected = [kernel[:, :, i % 3] * 3 / channels for i in range(channels)]
    expected = [kernel.sum(2)] if channels == 1 else expected
    found = load_pretrained(URL, in_chans=channels)[1]["params"]["conv1"]["kernel"]
    np.testing.assert_allclose(found, np.stack(expected, 2), rtol=1e-6)


def test_a_repository_of_ones_own_is_a_name(elsewhere, tmp_path):
    card = WEIGHT_CARDS[HUB]
    drawn = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), small().variables)
    save_pretrained(elsewhere.served / "me" / "birds", card.model, drawn, card=card, classes=("owl", "tit"))
    with elsewhere.serve() as server:
        model, variables = load_pretrained("hf://me/birds")
        found = weight_card("hf://me/birds@main")
        with pytest.raises(UserError, match=f"there is no {server.url}/me/fish, or it needs a login: hf auth login"):
            load_pretrained("hf://me/fish")
        (elsewhere.served / "me" / "birds" / "model.safetensors").unlink()
        shutil.rmtree(elsewhere.caches[0])
        with pytest.raises(UserError, match="me/birds has no model.safetensors"):
            load_pretrained("hf://me/birds")
    assert (model.num_classes, found.classes, found.source) == (2, ("owl", "tit"), "hf://me/birds@main")
    assert (found.resize, found.interpolation, found.mean) == (card.resize, card.interpolation, card.mean)
    jax.tree.map(np.testing.assert_array_equal, variables, drawn)


def small():
    info = model_info(WEIGHT_CARDS[HUB].model)
    return structure(info.build(num_classes=2), info.input_size)


def test_a_file_under_its_published_name_is_a_name(tmp_path, made):
    path = tmp_path / "squeezenet1_1-b8a52dc0.pth"
    path.write_bytes(made[URL][1])
    assert weight_card(str(path)) == replace(WEIGHT_CARDS[URL], path=path)
    jax.tree.map(np.testing.assert_array_equal, load_pretrained(str(path))[1], made[URL][0])
    other = path.rename(tmp_path / "mine.pth")
    with pytest.raises(UserError, match="mine.pth is no name of published weights; import_state_dict takes any file"):
        load_pretrained(str(other))


def test_weights_of_another_network_are_told(tmp_path, made):
    path = tmp_path / "squeezenet1_0-b66bff10.pth"
    path.write_bytes(made[URL][1])
    with pytest.raises(UserError, match=r"not one of torchvision.squeezenet1_0"):
        load_pretrained(str(path))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"in_chans": 0}, "in_chans must be at least 1, not 0"),
        ({"drop": 0.1}, "unknown option of squeezenet1_1 'drop'; did you mean dropout"),
    ],
)
def test_a_mistake_is_told_before_a_download(elsewhere, options, line):
    with elsewhere.serve() as server, pytest.raises(UserError, match=line):
        load_pretrained(URL, **options)
    assert server.asked == []


def smallest():
    """The weights of the smallest network of each family that has some."""
    for family in FAMILIES:
        with_weights = [info for info in family.VARIANTS if info.weights]
        if with_weights:
            yield min(with_weights, key=lambda info: info.params).weights[0]


@pytest.mark.slow
@pytest.mark.parametrize("tag", list(smallest()))
def test_weights_of_every_family_load(elsewhere, monkeypatch, tag):
    drawn, content = synthetic(tag)
    (_, variables), _ = fetch(elsewhere, tag, content)
    jax.tree.map(np.testing.assert_array_equal, variables, drawn)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_pretrained(tag)[0].num_classes == WEIGHT_CARDS[tag].num_classes
