"""Sets images aside that neither training nor tuning nor a classifier of the scores ever sees.

    python benchmarks/hold_back.py --data=imagenet64 --classes=0,13,21 --per_class=50 --output=data64

--data is a folder with `train_images.npy`, `train_labels.npy` and the same of `val`. Into --output, a folder
of the same kind, it writes the training images without the last --per_class of each named class, the
validation images, and a third split `score`: the named classes' validation images and the training images
just left out. All keep their order. --keep leaves out all other classes: labels count those that stay.
"""

from pathlib import Path

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("data", None, "Folder with {train,val}_{images,labels}.npy.", required=True)
flags.DEFINE_list("classes", None, "Labels, in numbers, whose images are scored.", required=True)
flags.DEFINE_integer("per_class", 50, "Training images of each of them to set aside.", lower_bound=1)
flags.DEFINE_list("keep", None, "Labels that stay, those of --classes among them; by default all.")
flags.DEFINE_string("output", None, "Folder to write, a new one.", required=True)


def main(argv):
    if len(argv) > 1:
        raise ValueError(f"unexpected arguments {argv[1:]}; everything is a flag, see --help")
    from haim_tf import data, files

    train, val = (data.load(FLAGS.data, split) for split in ("train", "val"))
    classes = sorted({int(label) for label in FLAGS.classes})
    stay = sorted({int(label) for label in FLAGS.keep}) if FLAGS.keep else np.unique(train.labels).tolist()
    if missing := sorted(set(classes) - set(stay)):
        raise ValueError(f"--classes must be among those that stay, {missing} are not")
    back = held_back(train.labels, classes, FLAGS.per_class)
    kept = np.setdiff1d(np.flatnonzero(np.isin(train.labels, stay)), back)
    scored = np.flatnonzero(np.isin(val.labels, classes))
    splits = {
        "train": [(train, kept)],
        "val": [(val, np.flatnonzero(np.isin(val.labels, stay)))],
        "score": [(val, scored), (train, back)],
    }
    output = Path(files.check_new_file(Path(FLAGS.output)))
    output.mkdir(parents=True)
    for split, parts in splits.items():
        images, labels = (
            np.concatenate([getattr(source, name)[rows] for source, rows in parts])
            for name in ("images", "labels")
        )
        np.save(output / f"{split}_images.npy", images)
        np.save(output / f"{split}_labels.npy", np.searchsorted(stay, labels) if FLAGS.keep else labels)
        print(f"{output / split}: {len(images):,} images")
    if train.class_names:
        names = [train.class_names[label] for label in stay] if FLAGS.keep else train.class_names
        files.write_json(output / "classes.json", names)


def held_back(labels, classes, per_class):
    """Places of the last `per_class` images of each class, ascending; a ValueError where one has too few."""
    places = []
    for label in classes:
        found = np.flatnonzero(labels == label)
        if len(found) <= per_class:
            raise ValueError(f"class {label} has {len(found)} images: cannot set {per_class} of them aside")
        places.append(found[-per_class:])
    return np.sort(np.concatenate(places))


if __name__ == "__main__":
    app.run(main)
