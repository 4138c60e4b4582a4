"""Pictures of a run and of what a network got wrong. Needs matplotlib (the `viz` extra)."""

from cnn_jax.visualize.pictures import draw_confusion, draw_curves, draw_mistakes, draw_run

__all__ = ["draw_confusion", "draw_curves", "draw_mistakes", "draw_run"]
