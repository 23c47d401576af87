"""The processor: cores that may be used, memory that is kept, a precision that it is good at."""

import os
import subprocess
import sys

import pytest

from haim_tf import processor

BOUND = """
import os
from haim_tf import processor
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
print(processor.usable_cores())
"""
PAGE_FAULTS = """
import resource, sys
import numpy as np
from haim_tf import processor
kept = processor.keep_freed_memory()
np.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(2**23)  # 64 MiB, which would be 16,384 pages each time.
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 50_000)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="nothing binds processes to cores")
def test_cores_are_those_that_the_process_may_use():
    assert processor.usable_cores() == len(os.sched_getaffinity(0))
    out = subprocess.run([sys.executable, "-c", BOUND], capture_output=True, text=True)
    assert out.stdout.strip() == "1", out.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
@pytest.mark.parametrize(
    "setting, found", [({}, "True True"), ({"MALLOC_MMAP_THRESHOLD_": "65536"}, "False False")]
)
def test_freed_memory_is_kept_unless_the_user_chose(setting, found):
    """At the system's own threshold, which the user names here, each large block is taken and given back."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    plain["NUMPY_MADVISE_HUGEPAGE"] = "0"
    out = subprocess.run(
        [sys.executable, "-c", PAGE_FAULTS], env={**plain, **setting}, capture_output=True, text=True
    )
    assert out.stdout.strip() == found, out.stderr


@pytest.mark.parametrize(
    "precision, seconds, found",
    [
        ("mixed_bfloat16", {"bfloat16": 10.0, "float32": 1.0}, "float32"),
        ("mixed_bfloat16", {"bfloat16": 0.6, "float32": 1.0}, "mixed_bfloat16"),
        ("mixed_float16", {"float16": 2.5, "float32": 1.0}, "float32"),
        ("mixed_float16", {"float16": 1.5, "float32": 1.0}, "mixed_float16"),
        ("float32", {}, "float32"),
    ],
)
def test_a_precision_that_the_processor_is_slow_at_gives_way(monkeypatch, precision, seconds, found):
    monkeypatch.setattr(processor, "_seconds", seconds.__getitem__)
    assert processor.quick_precision.__wrapped__(precision) == found


def test_accelerators_compute_in_what_is_asked_for(monkeypatch):
    monkeypatch.setattr(processor, "has_accelerator", lambda: True)
    monkeypatch.setattr(processor, "_seconds", {}.__getitem__)
    assert processor.quick_precision.__wrapped__("mixed_float16") == "mixed_float16"
    assert not processor.keep_freed_memory.__wrapped__()


def test_convolutions_are_timed():
    assert 0 < processor._seconds("float32") < 10


def test_without_tensorflow_there_is_no_float16_on_processors(monkeypatch):
    monkeypatch.setattr(processor, "is_tensorflow", lambda: False)
    assert processor.quick_precision.__wrapped__("mixed_float16") == "float32"
    assert processor.quick_precision.__wrapped__("mixed_bfloat16") == "mixed_bfloat16"
