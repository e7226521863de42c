"""The whole state of a training as named tensors on the CPU, and back: weights, average, optimiser.

Sharded tensors are gathered whole, so that a checkpoint does not remember how many workers wrote it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from schemas.errors import DataError
from vpp.train.ema import Ema

Groups = dict[str, dict[str, torch.Tensor]]
"""Named tensors by group: `weights`, `ema`, `optimizer`."""


def take_snapshot(module: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema, keep: bool) -> Groups:
    """Copies the state to the CPU. All workers call it, because sharded tensors are gathered from all.

    Args:
        module: The module in training, unwrapped.
        optimizer: Its optimiser.
        ema: Its average.
        keep: False takes part in the gathering, but keeps nothing.
    """
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    moments = {
        f"{key}.{name}": value if isinstance(value, torch.Tensor) else torch.tensor(value)
        for name, parameter in trained.items()
        for key, value in optimizer.state[parameter].items()
    }
    groups: dict[str, Mapping[str, torch.Tensor]] = {"weights": trained, "ema": ema.averages, "optimizer": moments}
    return {group: _whole(tensors, keep) for group, tensors in groups.items()}


@torch.no_grad()
def restore_snapshot(
    groups: Groups | None, module: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema, device: torch.device
) -> None:
    """Puts a snapshot back into a module, optimiser and average that were made with the same settings.

    Args:
        groups: The snapshot on rank 0, which sends it to the others; None there.
        module: The module in training, unwrapped.
        optimizer: Its optimiser.
        ema: Its average.
        device: Where the tensors go.

    Raises:
        DataError: `other_model` if the names or shapes are not the module's.
    """
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    sender = _Sender(groups, device)
    _check_names(sender.shapes["weights"], trained)
    for name, parameter in trained.items():
        sender.fill(parameter, "weights", name)
        sender.fill(ema.averages[name], "ema", name)
        optimizer.state[parameter] = {}
    for place in sender.shapes["optimizer"]:
        key, _, name = place.partition(".")
        value = sender.send("optimizer", place, trained[name])
        is_counter = value.dtype == torch.int64 and value.dim() == 0  # bitsandbytes counts in a plain int
        optimizer.state[trained[name]][key] = int(value) if is_counter else value


@torch.no_grad()
def load_average(groups: Groups, module: nn.Module) -> None:
    """Puts the averaged weights of a checkpoint into a module.

    Raises:
        DataError: `other_model` if the names are not the module's.
    """
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    _check_names(groups["ema"], trained)
    for name, parameter in trained.items():
        parameter.copy_(groups["ema"][name])


def _whole(tensors: Mapping[str, torch.Tensor], keep: bool) -> dict[str, torch.Tensor]:
    result = {}
    for name, tensor in tensors.items():
        whole = (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()
        if keep:
            result[name] = whole.to("cpu", copy=True)
    return result


class _Sender:
    """Brings a snapshot that rank 0 has to all workers, tensor by tensor."""

    def __init__(self, groups: Groups | None, device: torch.device) -> None:
        self._groups, self._device = groups, device
        shapes = {
            group: {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in sorted(tensors.items())}
            for group, tensors in (groups or {}).items()
        }
        self._is_distributed = dist.is_initialized() and dist.get_world_size() > 1
        box = [shapes]
        if self._is_distributed:
            dist.broadcast_object_list(box, src=0, device=device)
        self.shapes = box[0]

    def send(self, group: str, name: str, like: torch.Tensor) -> torch.Tensor:
        """A tensor on this worker's device, sharded as `like` if it has its shape."""
        shape, dtype = self.shapes[group][name]
        if self._groups is not None:
            value = self._groups[group][name].to(self._device, copy=True)
        else:
            value = torch.empty(shape, dtype=dtype, device=self._device)
        if isinstance(like, DTensor) and like.shape == shape:
            return distribute_tensor(value, like.device_mesh, like.placements)
        if self._is_distributed:
            dist.broadcast(value, src=0)
        return value

    def fill(self, target: torch.Tensor, group: str, name: str) -> None:
        """Copies a tensor into another."""
        shape, _ = self.shapes[group][name]
        if tuple(target.shape) != shape:
            raise DataError("other_model", f"{name}: expected shape {tuple(target.shape)}, found {shape}")
        target.copy_(self.send(group, name, target))


def _check_names(found: Iterable[str], expected: Iterable[str]) -> None:
    other = sorted(set(found) ^ set(expected))
    if other:
        raise DataError("other_model", f"expected the parameters of this model, found a difference at {other[0]}")
