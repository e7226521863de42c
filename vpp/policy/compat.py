"""Faults of the published policy that its weights were trained with, each behind one flag (arXiv 2412.14803).

The default is the behaviour without the fault.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Compat:
    """What of the published behaviour is brought back; belongs to the weights."""

    causal_cross_attention: bool = False
    """The published causal flag of the decoder reaches its cross-attention too, so action i sees only the first i + 1
    tokens of the context: the first one the goal alone. Without it every action sees the whole context."""
    no_action_positions: bool = False
    """The published positional embeddings exist but are never added: only what the causal masks let each action see
    tells one from another. Without it the actions of a chunk have learned positions."""
    lr_schedule_inert: bool = False
    """The published tri-stage schedule drives another optimiser than the one that trains, so the learning rate stays
    at its peak. Without it the schedule is applied."""


PUBLISHED = Compat(causal_cross_attention=True, no_action_positions=True, lr_schedule_inert=True)
"""All of it, as the published weights need it."""
