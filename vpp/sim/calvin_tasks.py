"""CALVIN's 34 tasks: what kind each is of, and its instruction in the benchmark's evaluation.

Source: Mees et al. 2022, "CALVIN" (arXiv 2112.03227), and its repository at commit fa03f01: the validation annotations
hold one sentence a task, as it stands here. The order is that of the official table, on which the draw of the official
chains depends.
"""

from __future__ import annotations

_TASKS = (
    ("rotate_red_block_right", "move block", "take the red block and rotate it to the right"),
    ("rotate_red_block_left", "move block", "take the red block and rotate it to the left"),
    ("rotate_blue_block_right", "move block", "take the blue block and rotate it to the right"),
    ("rotate_blue_block_left", "move block", "take the blue block and rotate it to the left"),
    ("rotate_pink_block_right", "move block", "take the pink block and rotate it to the right"),
    ("rotate_pink_block_left", "move block", "take the pink block and rotate it to the left"),
    ("push_red_block_right", "move block", "go push the red block right"),
    ("push_red_block_left", "move block", "go push the red block left"),
    ("push_blue_block_right", "move block", "go push the blue block right"),
    ("push_blue_block_left", "move block", "go push the blue block left"),
    ("push_pink_block_right", "move block", "go push the pink block right"),
    ("push_pink_block_left", "move block", "go push the pink block left"),
    ("move_slider_left", "slider", "push the sliding door to the left side"),
    ("move_slider_right", "slider", "push the sliding door to the right side"),
    ("open_drawer", "drawer", "pull the handle to open the drawer"),
    ("close_drawer", "drawer", "push the handle to close the drawer"),
    ("lift_red_block_table", "lift from table", "grasp and lift the red block"),
    ("lift_red_block_slider", "lift from slider", "lift the red block from the sliding cabinet"),
    ("lift_red_block_drawer", "lift from drawer", "Take the red block from the drawer"),
    ("lift_blue_block_table", "lift from table", "grasp and lift the blue block"),
    ("lift_blue_block_slider", "lift from slider", "lift the blue block from the sliding cabinet"),
    ("lift_blue_block_drawer", "lift from drawer", "Take the blue block from the drawer"),
    ("lift_pink_block_table", "lift from table", "grasp and lift the pink block"),
    ("lift_pink_block_slider", "lift from slider", "lift the pink block from the sliding cabinet"),
    ("lift_pink_block_drawer", "lift from drawer", "Take the pink block from the drawer"),
    ("place_in_slider", "place", "store the grasped block in the sliding cabinet"),
    ("place_in_drawer", "place", "store the grasped block in the drawer"),
    ("stack_block", "stack", "stack the grasped block"),
    ("unstack_block", "unstack", "remove the stacked block"),
    ("turn_on_lightbulb", "light", "use the switch to turn on the light bulb"),
    ("turn_off_lightbulb", "light", "use the switch to turn off the light bulb"),
    ("turn_on_led", "light", "press the button to turn on the led light"),
    ("turn_off_led", "light", "press the button to turn off the led light"),
    ("push_into_drawer", "push into drawer", "slide the block that it falls into the drawer"),
)

INSTRUCTIONS = {task: instruction for task, _, instruction in _TASKS}
"""By task."""

KINDS = {task: kind for task, kind, _ in _TASKS}
"""By task. No two tasks of a chain are of one kind."""
