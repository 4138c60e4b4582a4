"""How every picture is written."""

import warnings
from pathlib import Path

from matplotlib.figure import Figure


def save(figure: Figure, path: Path, dpi: int = 110) -> None:
    """Writes a PNG file. Letters that no font here has are drawn as boxes; that is seen, and needs no warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(path, dpi=dpi)
