"""Makes this folder and ../imagenet256: configurations at the paper's scale, without weights.

python zoo/imagenet128/make.py
"""

from pathlib import Path

import haim_tf

ZOO = Path(__file__).parent.parent
LIMITS = [
    "Never trained here: widths and depths follow published models of this kind, not measurements.",
    "What training costs is estimated in docs/scaling.md.",
]


def level(downsampling, **decoder):
    """One level; `decoder` holds arguments of its main decoder."""
    return {
        "downsampling": downsampling,
        "codebook_size": 512,
        "code_dim": 64,
        "width": 256,
        "blocks": 6,
        "decoder": {"kernel_size": [3, 5], "condition_width": 256, "condition_blocks": 8, **decoder},
    }


PIXELS = level(4, width=256, blocks=16, remat=True)
CODES = level(2, width=384, blocks=16, remat=True)
PRIOR = {"width": 512, "blocks": 20, "kernel_size": [3, 5], "heads": 8}
PRIOR |= {"attention": [3, 7, 11, 15, 19], "dropout": 0.1}
MODELS = {
    "imagenet128": {"image_shape": (128, 128, 3), "levels": [PIXELS, CODES]},
    "imagenet256": {"image_shape": (256, 256, 3), "levels": [PIXELS, CODES, CODES]},
}


def main():
    for name, arguments in MODELS.items():
        model = haim_tf.HierarchicalModel(**arguments, prior=PRIOR, num_classes=1000)
        sides = [arguments["image_shape"][0], *(shape[0] for shape in model.grid_shapes[1:])]
        metadata = {
            "description": f"A configuration at the paper's scale: {' -> '.join(map(str, sides))}, by class.",
            "pretrained": False,
            "dataset": {"name": "none; meant for ImageNet", "terms": "none: no data went into it"},
            "limits": LIMITS,
        }
        model.save_to_preset(ZOO / name, metadata=metadata, overwrite=True, weights=False)


if __name__ == "__main__":
    main()
