"""A traced function as bytes, and bytes as a function that runs: TensorFlow only."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras

from haim_tf import startup

# What XLA calls errors when it loads a program: tuning hints of its own that no processor lists, and that the
# file is no text.
_LOADING = rb"E\d{4} .*(cpu_aot_loader|XlaSerializedCacheEntry)"


def content_of(traced: Any, layer: keras.Layer) -> dict[str, Any] | None:
    """What a file holds of a traced function, but for executables: its graph, the weights among the inputs.
    `None` where it reads something else than the layer's variables."""
    import tensorflow as tf

    handles = {id(v.value.handle): i for i, v in enumerate(layer.variables)}
    variables = [handles.get(id(x)) for x in traced.captured_inputs]
    if None in variables:
        return None
    graph = tf.compat.v1.GraphDef()
    graph.library.CopyFrom(traced.graph.as_graph_def().library)
    graph.library.function.append(traced.function_def)
    del graph.library.gradient[:]
    _rename(graph.library.function)

    call = tf.compat.v1.NodeDef(name="call", op="StatefulPartitionedCall")
    call.attr["f"].func.name = graph.library.function[-1].signature.name
    call.attr["_XlaMustCompile"].b = True
    call.attr["Tout"].list.type.extend(x.dtype.as_datatype_enum for x in traced.graph.outputs)
    for i, x in enumerate(traced.graph.inputs):
        place = graph.node.add(name=f"input_{i}", op="Placeholder")
        place.attr["dtype"].type = x.dtype.as_datatype_enum
        call.attr["Tin"].list.type.append(x.dtype.as_datatype_enum)
        call.input.append(place.name)
    graph.node.append(call)
    outputs = [x is not None for x in traced.structured_outputs]
    return {"graph": graph.SerializeToString(), "variables": variables, "outputs": outputs, "executables": {}}


def _rename(functions):
    """Gives functions names that no others have, for a process may read many files."""
    content = hashlib.sha256(b"".join(f.SerializeToString(deterministic=True) for f in functions)).hexdigest()
    names = {f.signature.name: f"haim_tf_{content[:16]}_{i}" for i, f in enumerate(functions)}
    for function in functions:
        function.signature.name = names[function.signature.name]
        for node in function.node_def:
            node.op = names.get(node.op, node.op)
            for value in node.attr.values():
                for called in (value.func, *value.list.func):
                    if called.name in names:
                        called.name = names[called.name]


def loaded(
    content: dict[str, Any], layer: keras.Layer, inputs: Sequence[Any]
) -> tuple[Callable, dict[str, bytes]]:
    """A kept program, run once on `inputs`, and what XLA compiled for it, bytes by name."""
    import tensorflow as tf

    graph = tf.compat.v1.GraphDef.FromString(content["graph"])
    *_, call = graph.node
    own_name, variables = call.attr["f"].func.name, layer.variables
    results = [f"call:{i}" for i in range(len(call.attr["Tout"].list.type))]

    def tensors(inputs):
        weights = (variables[i].value.handle for i in content["variables"])
        return [*(x for x in inputs if hasattr(x, "shape")), *weights]

    def imported(*places):
        sources = {f"input_{i}:0": x for i, x in enumerate(places)}
        return tf.graph_util.import_graph_def(graph, sources, results, name="")

    specs = [tf.TensorSpec(x.shape, x.dtype) for x in tensors(inputs)]
    run = tf.compat.v1.wrap_function(imported, specs)

    def program(*inputs):
        found = iter(run(*tensors(inputs)))
        return tuple(next(found) if there else None for there in content["outputs"])

    with _executables(content["executables"], own_name) as compiled:
        program(*inputs)
    return program, compiled


@contextlib.contextmanager
def _executables(kept, name):
    """Lays what was kept where XLA looks for it, and gives what it then has of the function of this name."""
    import tensorflow as tf

    place, found = startup.EXECUTABLES, {}
    if place not in os.environ.get(startup.XLA_FLAGS, ""):
        yield found
        return
    tf.io.gfile.makedirs(place)
    for file, content in kept.items():
        with tf.io.gfile.GFile(f"{place}/{file}", "wb") as opened:
            opened.write(content)
    try:
        with contextlib.nullcontext() if startup.is_quiet() or not kept else startup.held_back(_LOADING):
            yield found
    finally:
        for file in tf.io.gfile.listdir(place):
            with contextlib.suppress(tf.errors.OpError), tf.io.gfile.GFile(f"{place}/{file}", "rb") as opened:
                content = opened.read()
                # It begins with its keys and then the name of the module, which is that of the function.
                if name.encode() in content[:1000]:
                    found[file] = content
                    # XLA has it by now, and needs no second copy in memory.
                    tf.io.gfile.remove(f"{place}/{file}")
