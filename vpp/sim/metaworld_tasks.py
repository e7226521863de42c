"""MetaWorld's 50 tasks: each one's instruction in words, and how hard it is.

Source of the grouping: Seo et al. 2022, "Masked World Models for Visual Control" (arXiv 2206.14244), appendix, which
sorts the tasks into 28 easy, 11 medium, 6 hard and 5 very hard ones. arXiv 2412.14803 reports 28 easy, 11 middle and 11
hard: its hard ones are taken to be the last two kinds together.
"""

from __future__ import annotations

from collections.abc import Sequence

from schemas.errors import UsageError

INSTRUCTIONS = {
    "assembly-v3": "put the ring on the peg",
    "basketball-v3": "drop the ball into the basket",
    "bin-picking-v3": "move the block to the other bin",
    "box-close-v3": "put the lid on the box",
    "button-press-topdown-v3": "press the button from above",
    "button-press-topdown-wall-v3": "press the button behind the wall from above",
    "button-press-v3": "press the button",
    "button-press-wall-v3": "press the button behind the wall",
    "coffee-button-v3": "press the button of the coffee machine",
    "coffee-pull-v3": "pull the mug away from the coffee machine",
    "coffee-push-v3": "push the mug under the coffee machine",
    "dial-turn-v3": "turn the dial",
    "disassemble-v3": "take the ring off the peg",
    "door-close-v3": "close the door",
    "door-lock-v3": "lock the door",
    "door-open-v3": "open the door",
    "door-unlock-v3": "unlock the door",
    "drawer-close-v3": "close the drawer",
    "drawer-open-v3": "open the drawer",
    "faucet-close-v3": "close the faucet",
    "faucet-open-v3": "open the faucet",
    "hammer-v3": "hammer the nail in",
    "hand-insert-v3": "put the hand into the hole",
    "handle-press-side-v3": "press the handle down from the side",
    "handle-press-v3": "press the handle down",
    "handle-pull-side-v3": "pull the handle up from the side",
    "handle-pull-v3": "pull the handle up",
    "lever-pull-v3": "pull the lever up",
    "peg-insert-side-v3": "insert the peg into the side hole",
    "peg-unplug-side-v3": "unplug the peg from the side",
    "pick-out-of-hole-v3": "pick the block out of the hole",
    "pick-place-v3": "pick up the block and move it to the goal",
    "pick-place-wall-v3": "pick up the block and move it over the wall to the goal",
    "plate-slide-back-side-v3": "slide the plate back out sideways",
    "plate-slide-back-v3": "slide the plate back out of the goal",
    "plate-slide-side-v3": "slide the plate sideways into the goal",
    "plate-slide-v3": "slide the plate into the goal",
    "push-back-v3": "push the block back to the goal",
    "push-v3": "push the block to the goal",
    "push-wall-v3": "push the block around the wall to the goal",
    "reach-v3": "reach the goal",
    "reach-wall-v3": "reach the goal behind the wall",
    "shelf-place-v3": "put the block on the shelf",
    "soccer-v3": "kick the ball into the goal",
    "stick-pull-v3": "pull the thermos with the stick",
    "stick-push-v3": "push the thermos with the stick",
    "sweep-into-v3": "sweep the block into the hole",
    "sweep-v3": "sweep the block off the table",
    "window-close-v3": "close the window",
    "window-open-v3": "open the window",
}

_MIDDLE = (
    "basketball", "bin-picking", "box-close", "coffee-pull", "coffee-push", "hammer", "peg-insert-side", "push-wall",
    "soccer", "sweep", "sweep-into",
)  # fmt: skip
_HARD = ("assembly", "hand-insert", "pick-out-of-hole", "pick-place", "push", "push-back")
_VERY_HARD = ("disassemble", "pick-place-wall", "shelf-place", "stick-pull", "stick-push")

GROUPS = {
    task: "middle" if name in _MIDDLE else "hard" if name in _HARD + _VERY_HARD else "easy"
    for task in INSTRUCTIONS
    for name in [task.removesuffix("-v3")]
}
"""`easy`, `middle` or `hard` by task."""


def check_task(task: str) -> None:
    """Raises `UsageError` for a task that MetaWorld does not have."""
    if task not in INSTRUCTIONS:
        raise UsageError(f"--tasks: unknown MetaWorld task {task!r}; known: {', '.join(INSTRUCTIONS)}")


def expand_tasks(names: Sequence[str]) -> tuple[str, ...]:
    """Names of tasks, where `all`, `easy`, `middle` and `hard` stand for theirs.

    Raises:
        UsageError: For a name that MetaWorld does not have, a task named twice, and for none at all.

    >>> len(expand_tasks(["middle", "reach-v3"]))
    12
    """
    tasks: list[str] = []
    for name in names:
        if name == "all" or name in GROUPS.values():
            tasks += [task for task, group in GROUPS.items() if name in ("all", group)]
        else:
            check_task(name)
            tasks.append(name)
    if not tasks or len(set(tasks)) < len(tasks):
        raise UsageError(f"--tasks: expected different tasks, found {', '.join(names) or 'none'}")
    return tuple(tasks)
