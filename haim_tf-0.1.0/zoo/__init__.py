"""The pretrained models, one folder each, installed as the data package `haim_tf.zoo`.

This file makes it a regular package, so that `importlib.resources.files("haim_tf.zoo")` is a real
path in wheels and in editable installs alike.
"""
