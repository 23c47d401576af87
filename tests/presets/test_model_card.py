"""The model card tells what the metadata has, and nothing more."""

from haim_tf.presets.model_card import code_grids, model_card

CONFIG = {
    "image_shape": [28, 28, 1],
    "levels": [
        {"downsampling": 2, "codebook_size": 256, "decoder": {"width": 4}},
        {"downsampling": 2, "codebook_size": 128, "decoder": {"width": 4}},
    ],
    "num_classes": 10,
}
METADATA = {
    "name": "clothes",
    "pretrained": True,
    "class_names": None,
    "parameters": 1234567,
    "parameters_by_part": {
        "autoencoder_1": 1,
        "decoder_1": 2,
        "autoencoder_2": 3,
        "decoder_2": 4,
        "prior": 5,
    },
    "precision": "float32",
    "sha256": "abc",
    "haim_tf_version": "0.1",
    "keras_version": "3.15",
}


def test_code_grids():
    assert code_grids(CONFIG) == [(14, 14, 256), (7, 7, 128)]


def test_least_card():
    card = model_card(CONFIG, METADATA)
    assert card.startswith("# clothes\n")
    assert "not trained" not in card
    assert "1,234,567 parameters" in card
    assert "| level 1 | 14x14 | 256 | 1,568 | 1 | 2 |" in card
    assert "| level 2 | 7x7 | 128 | 343 | 3 | 4 |" in card
    assert 'haim_tf.load("clothes")' in card
    assert "Told the label" not in card
    told = {**CONFIG, "levels": [CONFIG["levels"][0], {**CONFIG["levels"][1], "decoder": {"labels": True}}]}
    assert "Told the label: the prior and the main decoder of level 2." in model_card(told, METADATA)
    for title in ("Data", "Training", "Metrics", "Limits"):
        assert f"## {title}" not in card


def test_full_card():
    card = model_card(
        CONFIG,
        {
            **METADATA,
            "pretrained": False,
            "description": "Draws clothes.",
            "class_names": ["shirt", "boot"],
            "dataset": {"name": "Fashion-MNIST", "terms": "MIT"},
            "training": {"command": "haim_tf train", "images_seen": 12},
            "evaluation": {
                "data": "fashion_mnist",
                "split": "test",
                "num": 10000,
                "seed": 0,
                "bits_per_dim": {"level_1": 2.5, "prior": 0.25, "total": 2.75},
                "levels": {
                    "level_1": {
                        "bits_per_dim_shuffled_codes": 4.0,
                        "perplexity": 200.0,
                        "active_fraction": 0.995,
                        "error_auxiliary": 0.01,
                        "error_main": None,
                    }
                },
            },
            "metrics": [{"name": "accuracy", "value": 0.9, "split": "test", "count": 10000}],
            "limits": ["Clothes only."],
            "pictures": {"samples.png": "Samples."},
        },
    )
    assert "**The weights are not trained ones" in card
    assert "![Samples.](samples.png)" in card
    assert "Labels: 0 shirt, 1 boot." in card
    assert "- terms: MIT" in card
    assert "- command: `haim_tf train`" in card and "- images seen: 12" in card
    assert "on 10,000 images of fashion_mnist, test, seed 0" in card
    assert "| level 1 | 2.5000 | 4.0000 | 200.0 | 99.5% | 0.0100 |  |" in card
    assert "| total | 2.7500 |" in card
    assert "| metric | value | split | images |\n|---|---|---|---|\n| accuracy | 0.9 | test | 10000 |" in card
    assert "- Clothes only." in card
    assert "\n\n\n" not in card


def test_values_may_be_tuples():
    card = model_card(CONFIG, METADATA | {"sampling": {"temperature": (1.0, 0.9), "guidance": 2.0}})
    assert "| temperature | guidance |\n|---|---|\n| 1, 0.9 | 2 |" in card


def test_flat_model():
    card = model_card(
        {"image_shape": [8, 8, 3], "levels": []}, {**METADATA, "parameters_by_part": {"prior": 5}}
    )
    assert "| prior |  |  |  |  | 5 |" in card and "Unconditional" in card
