"""A run folder joined of the outputs of its stages."""

import math
import os

from parts.outputs import build, digest, read_output


def join(recipe, images, data, split, codes, outputs, folder):
    """Puts the outputs of stages into a run folder, finished but for its preset, and has `train` write that.

    Args:
        recipe: as `read_recipe` gives it, its model's configuration as the codes have it.
        images: the `ImageData` that was learned, which `data` and `split` name.
        codes: path of a preset folder or of the output of the stage of codes; `None` for a model without.
        outputs: paths of the other stages' outputs.
        folder: of the run, a new one.
    """
    from haim_tf import training
    from haim_tf.training.recipe import check_recipe
    from haim_tf.training.whole_run import source_name

    if recipe["model"]["levels"] and not codes:
        raise ValueError("--codes must be given with --join: the codes that the parts have learned on")
    rows, found = [], {}
    for path in [codes] * (not os.path.isdir(codes or ".")) + outputs:
        with read_output(path) as (meta, saved):
            if meta["part"] in found:
                raise ValueError(f"{path} has {meta['part']}, which another of --join has too")
            if meta["part"] != "codes":
                found[meta["part"]] = [saved[f"w{i}"] for i in range(len(saved.files) - 1)]
        if not meta["final"]:
            raise ValueError(f"{path} is of a stage that has not come to its end")
        if meta["part"] != "codes" and meta.get("codes") != digest(codes):
            raise ValueError(f"{path} has learned on other codes than those of {codes}")
        stage = recipe["stages"][meta["stage"] - 1]
        stage["steps"] = meta["steps"]
        stage["warmup"] = min(stage["warmup"], meta["steps"])
        rows += meta["rows"]
    # A stage that ran out of time has other steps.
    recipe["interval"] = math.gcd(recipe["interval"], *(stage["steps"] for stage in recipe["stages"]))
    model = build(recipe, "float32", codes)
    missing = set(model.parts) - set(found) - model.parts_named(["codes"])
    if missing or set(found) - set(model.parts):
        raise ValueError(
            f"--join must have all networks of the model, {', '.join(model.parts)}; got {sorted(found)}"
        )
    for part, weights in found.items():
        for variable, value in zip(model.parts[part].trainable_variables, weights, strict=True):
            variable.assign(value)
    check_recipe(recipe, model, images)
    known = {"source": source_name(data), "split": split, **images.fingerprint()}
    with training.RunFolder(folder, recipe, data=known) as run:
        run.rows = sorted(rows, key=lambda row: (row["stage"], row["step"]))
        run.save(model, len(recipe["stages"]), 0)
    training.train(recipe, data, folder, split=split)
