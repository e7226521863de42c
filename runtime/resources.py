"""What the nodes of a cluster can hold, those that may still come included, and what never fits on them.

Ray 2.60 lets a request that no node can hold wait for ever. Its open-source autoscaler tells nobody which nodes it may
start, so the cluster's files say it in a variable of the environment of every node:
`VPP_NODE_TYPES='[{"CPU": 8, "max": 16}, {"CPU": 96, "GPU": 8, "max": 1}]'`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.errors import UsageError

NODE_TYPES_VARIABLE = "VPP_NODE_TYPES"
SHOWN = ("CPU", "GPU")
"""Resources that jobs ask for."""


@dataclass(frozen=True)
class Nodes:
    """Nodes of one kind.

    Attributes:
        resources: Of each, by name.
        number: How many there are, or may be.
    """

    resources: Mapping[str, float]
    number: int = 1


@dataclass(frozen=True)
class Cluster:
    """What a cluster has and may get.

    Attributes:
        head: The head node.
        workers: All other nodes that are there.
        to_come: Kinds of worker nodes that may be there, those that are included; empty if none come on demand.
    """

    head: Nodes
    workers: tuple[Nodes, ...] = ()
    to_come: tuple[Nodes, ...] = ()

    def num_held(self, bundle: Mapping[str, float]) -> int:
        """How many times a bundle of resources fits, each on one node."""

        def fits(nodes: Sequence[Nodes]) -> int:
            return sum(each.number * _times(each.resources, bundle) for each in nodes)

        return fits([self.head]) + max(fits(self.workers), fits(self.to_come))

    def total(self, resource: str) -> float:
        """The most of a resource that there can be."""

        def amount(nodes: Sequence[Nodes]) -> float:
            return sum(each.number * each.resources.get(resource, 0) for each in nodes)

        return amount([self.head]) + max(amount(self.workers), amount(self.to_come))

    def plain_cpus(self) -> int:
        """The most CPUs of nodes without GPUs: work on CPUs should start no node with some. All, where each has some.

        >>> Cluster(Nodes({}), (), (Nodes({"CPU": 8}, 16), Nodes({"CPU": 96, "GPU": 8}))).plain_cpus()
        128
        """

        def without_gpus(nodes: Sequence[Nodes]) -> tuple[Nodes, ...]:
            return tuple(each for each in nodes if not each.resources.get("GPU"))

        head = self.head if without_gpus([self.head]) else Nodes({})
        plain = Cluster(head, without_gpus(self.workers), without_gpus(self.to_come)).total("CPU")
        return int(plain or self.total("CPU"))

    def even_share(self, resource: str, number: int) -> int:
        """The most of a resource, in whole units, that so many can have at the same time, each on one node; at least 1.

        >>> Cluster(Nodes({}), (Nodes({"CPU": 8}), Nodes({"CPU": 8}))).even_share("CPU", 3)
        4
        """
        shares = range(int(self.total(resource) // number), 1, -1)
        return next((share for share in shares if self.num_held({resource: share}) >= number), 1)

    def check_holds(self, what: str, bundle: Mapping[str, float], number: int, remedy: str) -> None:
        """Makes sure that the cluster can hold what a job asks for, now or once all nodes are there.

        Args:
            what: Who asks, such as `training workers`.
            bundle: Resources of each.
            number: How many have to be there at the same time.
            remedy: What to set.

        Raises:
            UsageError: If it never can.
        """
        held = self.num_held(bundle)
        if held >= number:
            return
        raise UsageError(
            f"{what}: expected a cluster that can hold {number} x {describe(bundle)}, each on one node, found room for "
            f"{held}: {self._describe()}; {remedy}" + ("" if self.to_come else _ON_DEMAND)
        )

    def _describe(self) -> str:
        found = [f"head with {describe(self.head.resources)}"]
        alike = Counter(describe(each.resources) for each in self.workers)
        found += [f"{number} with {resources}" for resources, number in alike.items()]
        found += [f"at most {each.number} with {describe(each.resources)}" for each in self.to_come]
        return ", ".join(found)


_ON_DEMAND = f'; or where nodes come on demand, say which: {NODE_TYPES_VARIABLE}=\'[{{"CPU": 8, "max": 16}}]\''


def _times(resources: Mapping[str, float], bundle: Mapping[str, float]) -> int:
    return min(int(resources.get(name, 0) / amount + 1e-6) for name, amount in bundle.items() if amount)


def describe(resources: Mapping[str, float]) -> str:
    """Resources that jobs ask for, in words.

    >>> describe({"GPU": 1.0, "CPU": 8.0, "memory": 1e9})
    '8 CPU and 1 GPU'
    """
    return " and ".join(f"{resources[name]:g} {name}" for name in SHOWN if name in resources) or "no CPU"


def parse_node_types(text: str) -> tuple[Nodes, ...]:
    """Reads `VPP_NODE_TYPES`; empty text is no node.

    Raises:
        UsageError: If it is not a list of resources with `max` each.

    >>> parse_node_types('[{"CPU": 8, "max": 2}]')
    (Nodes(resources={'CPU': 8.0}, number=2),)
    """
    expected = f'{NODE_TYPES_VARIABLE}: expected a list such as [{{"CPU": 96, "GPU": 8, "max": 1}}], found {text!r}'
    try:
        found = json.loads(text or "[]")
        return tuple(
            Nodes({name: float(amount) for name, amount in each.items() if name != "max"}, int(each["max"]))
            for each in found
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(expected) from error
