"""Video Prediction Policy as a policy of LeRobot, found by its name once it is installed.

The modules have the names that LeRobot's factory derives from each other: `configuration_*`, `modeling_*`,
`processor_*`. A policy's folder of `jobs/stage2.py` is what LeRobot calls a pretrained policy.
"""

from lerobot_policy_vpp.configuration_vpp import VPPConfig

__all__ = ["VPPConfig"]
