"""Makes this folder's preset and card from a finished run and its measurements.

    python zoo/fashion_mnist28/make.py RUN MEASURED [FLAT]

RUN and FLAT are output folders of the recipe and of its variant `flat`; MEASURED holds what these wrote:

    haim_tf evaluate --model=RUN/preset --data=val.npz --output=MEASURED/evaluation.json
    haim_tf evaluate --model=FLAT/preset --data=val.npz --output=MEASURED/flat.json
    python benchmarks/classification_accuracy_score.py --model=RUN/preset --data=train.npz \\
        --val_data=val.npz --output=MEASURED/classification_accuracy_score.json

Without FLAT the baseline stays the one that this folder's metadata has: an earlier run.
"""

import json
import shutil
import sys
from pathlib import Path

import haim_tf

FOLDER = Path(__file__).parent
CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"]
CLASSES += ["Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]

# What of the weights and the baseline that are here is not the recipe run in one go: to be changed with them.
HISTORY = {
    "order": "level 1 and its main decoder come from a run of this recipe that had 32 codes at level 2; "
    "level 2 and the prior were then trained anew with 16, as long, on the same level 1, since on the "
    "images kept out the codes of 32 cost more bits than they saved (hours count both)",
    "baseline": "--variant=flat: no codes, as many blocks, kernels 2x5; an earlier run, kept, of 8,000 steps "
    "(256,000 images), its weights averaged over 1,000 steps, not 100 (`ema` 0.999)",
}


def main(run, measured, flat_run=None):
    run, measured = Path(run), Path(measured)
    model = haim_tf.load(str(run / "preset"))
    model.class_names = CLASSES
    training = haim_tf.presets.read(run / "preset")[1]["training"]
    evaluation, score = (
        json.loads((measured / f"{name}.json").read_text())
        for name in ("evaluation", "classification_accuracy_score")
    )
    evaluation |= {"model": FOLDER.name, "data": "Fashion-MNIST"}
    baseline = haim_tf.presets.read(FOLDER)[1].get("baseline")
    if flat_run:
        flat = json.loads((measured / "flat.json").read_text())
        baseline = {
            "parameters": haim_tf.presets.read(Path(flat_run) / "preset")[1]["parameters"],
            "bits_per_dim": flat["bits_per_dim"]["total"],
        }
    total, flat_total = evaluation["bits_per_dim"]["total"], baseline["bits_per_dim"]
    val = {"split": "val", "count": str(evaluation["num"])}
    metadata = {
        "description": "Clothes: Fashion-MNIST at its own size, 28 -> 14 -> 7, by class.",
        "pretrained": True,
        "dataset": {
            "name": "Fashion-MNIST (Xiao, Rasul, Vollgraf 2017)",
            "terms": "MIT licence",
            "training images": "60,000, of which the last 512 were not learned from: they served to watch "
            "the run and to choose how many codes level 2 has",
        },
        "training": {
            "command": "haim_tf train --config=fashion_mnist28 --data=fashion_mnist --output=RUN",
            "cost": f"{training.pop('hours')} hours on two CPU cores, shared with other work",
            **training,
            "rare codes": "at the end those below a tenth of uniform usage were dropped (`rare_codes_below`)",
            **HISTORY,
        },
        "evaluation": evaluation,
        "baseline": baseline,
        "metrics": [
            {"name": "bits/dim of the whole bound", "value": f"{total:.4f}", **val},
            {
                "name": f"bits/dim of the flat, code-free PixelCNN ({baseline['parameters']:,} parameters)",
                "value": f"{flat_total:.4f}",
                **val,
            },
            {
                "name": "bound above the flat model's bits/dim",
                "value": f"{total / flat_total - 1:.1%}",
                **val,
            },
            {
                "name": f"accuracy of a classifier trained on {score['num_samples']:,} samples",
                "value": f"{score['accuracy_samples']:.4f}",
                **val,
            },
            {
                "name": f"accuracy of the same trained on {score['num_train']:,} real images",
                "value": f"{score['accuracy_real']:.4f}",
                **val,
            },
            {
                "name": "accuracy of the label by Bayes' rule from the model's likelihoods",
                "value": f"{evaluation['label_posterior']['accuracy']:.4f}",
                **val,
            },
            {"name": "classification accuracy score, their ratio", "value": f"{score['ratio']:.1%}", **val},
        ],
        "limits": [
            "Only Fashion-MNIST's kind of pictures: grey, centred, on black.",
            "Likelihoods are bounds; a flat model, which has no codes to pay for, comes lower (above).",
            "Trained for about an hour on two CPU cores: fine texture and prints are often noise.",
        ],
        "pictures": {
            "samples.png": "Samples, a column a class, seed 0, temperature 1, none left out.",
            "reconstructions.png": "Held-out training images (top), and the auxiliary decoders' pictures "
            "of their level 1 and level 2 codes.",
        },
    }
    model.save_to_preset(FOLDER, metadata=metadata, overwrite=True)
    images = model.sample(80, labels=[i % 10 for i in range(80)], verbose=False)
    haim_tf.data.save_grid(images, FOLDER / "samples.png", columns=10)
    shutil.copyfile(run / "reconstructions.png", FOLDER / "reconstructions.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
