"""`cnn-jax push`: a run's best checkpoint, or other weights, as a folder that timm reads or a repository on the Hub."""

import tempfile

from cnn_jax import storage
from cnn_jax.commands.network import Network, open_network, open_run
from cnn_jax.errors import UserError, first_line
from cnn_jax.recipes import Recipe
from cnn_jax.training import manifest
from cnn_jax.weights import WEIGHT_CARDS, WeightCard, save_pretrained
from cnn_jax.weights.cards import HUB


def push(*, to: str, model: str | None, weights: str | None, folder: str | None, private: bool) -> str:
    """Writes a network to `to`, a folder or hf://user/name.

    `model` and `weights` are open_network's, or `folder` is a run's, of which the best checkpoint is taken.

    Raises:
      UserError: no such run or weights, a network that timm does not have, or the Hub does not take it.
    """
    if folder is not None:
        network, config = open_run(folder, "best")
        facts = [_training(folder, config)]
    else:
        network, facts = open_network(str(model), weights), []
    if not to.startswith(HUB):
        _save(network, to, facts)
        return f"{network.source} is in {to}: timm.create_model('local-dir:{to}', pretrained=True)"
    import huggingface_hub

    with tempfile.TemporaryDirectory() as scratch:
        _save(network, scratch, facts)
        try:
            hub = huggingface_hub.HfApi(library_name="cnn_jax")
            name = hub.create_repo(to.removeprefix(HUB), private=private, exist_ok=True).repo_id
            hub.upload_folder(repo_id=name, folder_path=scratch, commit_message=f"Add {network.name}")
        except Exception as error:  # of the Hub, of HTTP
            raise UserError(f"cannot push to {to}: {first_line(error)} (`hf auth login` logs in)") from error
    return f"{network.source} is at {HUB}{name}: timm.create_model('hf-hub:{name}', pretrained=True)"


def _save(network: Network, folder: str, facts: list[str]) -> None:
    seen, published = network.seen, WEIGHT_CARDS.get(network.source)
    card = WeightCard(
        network.source,
        network.name,
        "",
        input_size=(*seen.size, len(seen.mean)),
        resize=seen.resize,
        interpolation=seen.interpolation,
        mean=seen.mean,
        std=seen.std,
        license=published.license if published else None,
    )
    save_pretrained(folder, network.name, network.variables, card=card, classes=network.classes or (), facts=facts)


def _training(folder: str, config: Recipe) -> str:
    """What a model card tells of a run."""
    told = f"Trained on {config.dataset} for {config.epochs} epochs"
    manifests = manifest.read_all(storage.place(folder) / "checkpoints")
    if (best := manifest.best(manifests)) is None:
        return f"{told}."
    return f"{told}: top-1 {manifests[best]['metrics'][manifest.BEST_BY]:.2%} on its {config.test_split}."
