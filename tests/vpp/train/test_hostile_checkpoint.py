"""A checkpoint of strangers reads, or is one of our errors, also where its sizes and hashes fit."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from hostile import EFFORTS, json_mutants, mutants, survives

from vpp.train.checkpoint import find_checkpoints, read_checkpoint, read_latest_checkpoint
from vpp.train.checkpoint_format import CheckpointInfo
from vpp.train.checkpoint_writer import CheckpointWriter


def saved(run: Path) -> Path:
    with CheckpointWriter(str(run)) as writer:
        writer.save(1, {"weights": {"a": torch.zeros(4, 3), "b": torch.ones(2)}}, {"seed": 1}, {"val/loss": 0.5})
    return run / "checkpoints/step_00000001"


def completed(folder: Path, name: str, content: bytes) -> None:
    """Writes a file of the checkpoint and what `complete.json` says of it."""
    (folder / name).write_bytes(content)
    complete = json.loads((folder / "complete.json").read_bytes())
    complete["files"][name] = {"num_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "complete.json").write_text(json.dumps(complete))


@EFFORTS
def test_the_description(tmp_path: Path, effort: int) -> None:
    folder = saved(tmp_path)
    document = json.loads((folder / "complete.json").read_bytes())

    def read(content: bytes) -> None:
        (folder / "complete.json").write_bytes(content)
        find_checkpoints(str(tmp_path), verify=True, retry_for_s=0)
        read_checkpoint(CheckpointInfo(1, str(folder), {}), retry_for_s=0)

    survives(read, json_mutants(document), effort)


@EFFORTS
def test_the_state_and_the_tensors(tmp_path: Path, effort: int) -> None:
    folder = saved(tmp_path)
    state = (folder / "state.json").read_bytes()
    tensors = (folder / "weights.safetensors").read_bytes()

    def read_state(content: bytes) -> None:
        completed(folder, "state.json", content)
        read_latest_checkpoint(str(tmp_path), retry_for_s=0)

    survives(read_state, json_mutants(json.loads(state)), effort)
    completed(folder, "state.json", state)

    def read_tensors(content: bytes) -> None:
        completed(folder, "weights.safetensors", content)
        read_latest_checkpoint(str(tmp_path), retry_for_s=0)

    survives(read_tensors, mutants(tensors), effort)
