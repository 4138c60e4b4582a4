"""What `cnn-jax` does in more than a few lines; like train.py these import from everywhere, and nobody imports them."""
