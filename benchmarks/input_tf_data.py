"""The rival in TensorFlow: TFRecords, tf.data with autotuning, the fused decode-and-crop, uint8 out."""

import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf

from benchmarks.contender import serve

SIZE = 224


def write_records(folder: Path, path: Path) -> None:
    """The JPEGs of folder/CLASS/*.jpg as one file of tf.train.Examples."""
    classes = sorted(entry.name for entry in folder.iterdir())
    with tf.io.TFRecordWriter(str(path)) as writer:
        for file in sorted(folder.glob("*/*.jpg")):
            label = tf.train.Feature(int64_list=tf.train.Int64List(value=[classes.index(file.parent.name)]))
            image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[file.read_bytes()]))
            example = tf.train.Example(features=tf.train.Features(feature={"image": image, "label": label}))
            writer.write(example.SerializeToString())


def view(record):
    """As the reference ImageNet pipelines do: the box is drawn first, and no more than it is decoded."""
    kinds = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}
    example = tf.io.parse_single_example(record, kinds)
    begin, size, _ = tf.image.sample_distorted_bounding_box(
        tf.image.extract_jpeg_shape(example["image"]),
        tf.zeros((0, 0, 4)),
        min_object_covered=0,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(0.08, 1.0),
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    window = tf.stack([begin[0], begin[1], size[0], size[1]])
    image = tf.image.decode_and_crop_jpeg(example["image"], window, channels=3)
    image = tf.image.resize(image, (SIZE, SIZE), "bilinear")
    return tf.cast(image + 0.5, tf.uint8), example["label"]


if __name__ == "__main__":
    folder, batch_size, batches, threads = Path(sys.argv[1]), *map(int, sys.argv[2:])
    records = folder.parent / "photos.tfrecord"
    if not records.exists():
        write_records(folder, records)
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    data = tf.data.TFRecordDataset(str(records)).repeat().shuffle(1000)
    data = data.map(view, tf.data.AUTOTUNE).batch(batch_size, drop_remainder=True).prefetch(2)
    batch = data.with_options(options).as_numpy_iterator()
    serve(lambda count: sum(len(next(batch)[0]) for _ in range(count)), batches)
