"""Image data: TFDS sets, folders, `.npz` and `.npy` files; batches in a reproducible order; sheets of images.

Only TFDS names need tensorflow, which is imported when one is read.
"""

from haim_tf.data.batches import Batches, in_order
from haim_tf.data.grid import save_grid
from haim_tf.data.image_data import ImageData, printable
from haim_tf.data.image_files import read_image
from haim_tf.data.sources import load

__all__ = ["Batches", "ImageData", "in_order", "load", "printable", "read_image", "save_grid"]
