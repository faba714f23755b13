"""Data sets that TensorFlow Datasets does not have, as its builders: `tfds:NAME@SPLIT`."""
