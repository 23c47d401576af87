"""Decompresses what `haim_tf compress` wrote, to one PNG file each.

A file that is damaged, of another model, or that this machine's arithmetic cannot decode, is an error, never
a wrong picture. One error, and no picture is written.
"""

from absl import flags

FLAGS = flags.FLAGS
ARGUMENTS = "FILE..."
flags.DEFINE_string(
    "model", None, "Name of a model, or a preset folder; by default the zoo's model that the files name."
)
flags.DEFINE_string("output", None, "Folder for the pictures, made if it is not there.", required=True)


def main(argv: list[str]) -> None:
    import io

    from PIL import Image

    from haim_tf import compression, presets
    from haim_tf.backend import require_tensorflow
    from haim_tf.cli._output import check_outputs, write_outputs
    from haim_tf.files import expanded

    require_tensorflow("decompression")
    outputs = check_outputs(argv[1:], FLAGS.output, ".png")
    files = [compression.unpack(expanded(path).read_bytes(), path) for path in argv[1:]]
    names = sorted({file.model for file in files})
    if FLAGS.model is None and (len(names) > 1 or names[0] not in presets.list_models()):
        raise ValueError(
            f"the files were written by {', '.join(map(repr, names))}: name one model by --model"
        )
    model = presets.load(FLAGS.model or names[0], weights=True)
    pictures = []
    for image in compression.decompress(model, files, names=argv[1:], verbose=True):
        buffer = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(buffer, format="PNG")
        pictures.append(buffer.getvalue())
    write_outputs(outputs, pictures)
    print(f"{len(pictures)} images in {FLAGS.output}")
