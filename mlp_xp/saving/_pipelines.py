"""The steps of a Pipeline before its network, saved in a skops file."""

from __future__ import annotations

import copy
import hashlib
import re
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from sklearn.pipeline import Pipeline

from mlp_xp._utils.optional import optional
from mlp_xp._utils.storage.files import read_file
from mlp_xp.saving._files import SPEC, SavingError, brief, errors_name, expect

LIMIT = 4 << 30  # The maximum size in bytes; vocabularies and nearest-neighbor tables are large.
_HOLE = "passthrough"  # Placeholder for the network.
_TRUSTED = ["numpy.dtype"]  # A type in imputers and encoders that skops does not trust by default.


def dump_steps(pipeline: Pipeline) -> bytes:
    """Return a skops file of all steps but the last; raise SavingError if skops cannot load it."""
    io = optional("skops.io", "skops")
    others = copy.copy(pipeline)
    others.steps = [*pipeline.steps[:-1], (pipeline.steps[-1][0], _HOLE)]
    content: bytes = io.dumps(others)
    untrusted = sorted({*io.get_untrusted_types(data=content)} - {*_TRUSTED})
    expect(
        not untrusted,
        f"the pipeline has {', '.join(untrusted)}, which skops does not load unless you trust it: "
        "type skops.io.dump(pipeline, 'pipeline.skops'), and skops.io.load with trusted=, or "
        "save_model(pipeline[-1], folder) for the network alone",
    )
    return content


def steps_name(content: bytes) -> str:
    """Return a name for a skops file that includes the digest of its content."""
    return f"steps-{hashlib.sha256(content).hexdigest()}.skops"


def is_steps_name(name: Any) -> bool:
    """Whether a name is a valid name of a skops file."""
    return isinstance(name, str) and bool(re.fullmatch(r"steps-[0-9a-f]{64}\.skops", name))


def with_steps(folder: Path, name: Any, network: Any) -> Pipeline:
    """Return a pipeline with the steps that are saved in the folder, then the network."""
    with errors_name(folder / SPEC):
        expect(is_steps_name(name), f"steps is {name!r}, not a file name from save_model")
    path, io = folder / name, optional("skops.io", "skops")
    with errors_name(path):
        content = read_file(path, LIMIT)
        expect(steps_name(content) == name, "its SHA-256 differs from its name: use a copy")
        try:
            with ZipFile(BytesIO(content)) as files:
                size = sum(file.file_size for file in files.infolist())
            expect(size <= len(content), "it is compressed, so it could take any amount of memory")
            pipeline = io.loads(content, trusted=_TRUSTED)
            name, hole = pipeline.steps[-1]
            is_whole = isinstance(pipeline, Pipeline) and hole == _HOLE
            expect(is_whole, "it does not end in a placeholder")
            pipeline.steps = [*pipeline.steps[:-1], (name, network)]
        except Exception as error:  # A changed file can cause any error, e.g. BadZipFile.
            raise SavingError(brief(error)) from error
    return pipeline
