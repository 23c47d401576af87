"""Compiled programs that outlive their process: traced and compiled once on a machine, then read from a file.

A file holds one program: its graph, whose weights are inputs, and what XLA made of it for this processor. It
lies in the folder `programs` of `HAIM_TF_HOME` (`~/.cache/haim_tf`), which only its owner may write to, under
a name that stands for all that the program depends on: this package and its sources, TensorFlow and Keras,
processor, settings, the network's configuration and the shapes. `HAIM_TF_PROGRAMS=0` in the environment keeps
and reads nothing. Whatever goes wrong with the folder, the program is made as if there were none. (JAX has a
cache of its own, which is kept in the same place.)
"""

from haim_tf.programs.compiled import Programs

__all__ = ["Programs"]
