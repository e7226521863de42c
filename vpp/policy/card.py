"""The card of a policy's folder: what it takes and gives, which frozen models it needs, how it is used."""

from __future__ import annotations

from schemas.encoder import STAND_IN
from schemas.hub_card import NO_LICENCE, code, hub_card, table
from vpp.policy.config import PolicyConfig

_USE = """## Use

```python
from vpp.policy.policy import VideoPredictionPolicy

policy = VideoPredictionPolicy.load("this/folder", video_model="folder/or/hub id of the video model")
action = policy.select_action({observation})
```

With `lerobot_policy_vpp` installed, LeRobot runs it as `--policy.path=this/folder
--policy.video_model=...`; `--rename_map` tells it which camera of an environment is which."""

_SUCCESS = """## Success

How often the policy solves its tasks is not in this card: `jobs/evaluate.py` measures it in MetaWorld or CALVIN, and
writes `summary.json` with intervals under its own output."""


def policy_card(config: PolicyConfig, num_weights: int, *blocks: str) -> str:
    """The text of a policy's `README.md`.

    Args:
        config: Its `config.json`.
        num_weights: Of the network that was trained.
        blocks: Further Markdown, such as how it was trained.
    """
    front = {
        "library_name": "lerobot",
        "pipeline_tag": "robotics",
        "tags": ["robotics", "lerobot", "vpp", "video-prediction-policy"],
    }
    about = (
        "A robot policy that acts on what a video model foresees ([Video Prediction "
        f"Policy](https://arxiv.org/abs/2412.14803)): Video Former and diffusion policy of {num_weights / 1e6:.1f} M "
        f"weights, {code(config.trained_by)}. The frozen models that it sees and reads with are named here and not "
        "part of this folder."
    )
    denoiser, encoder = config.denoiser, code(config.text_encoder)
    if config.text_encoder == STAND_IN:
        encoder += ": random weights, a stand-in for CLIP; it tells texts apart and knows nothing of words"
    frozen = f"features of {code(config.features.encoder)}, weights {code(config.video_model_hash)}"
    if config.features.encoder == "random":
        frozen += ", the network untrained"
    rows = [
        ("cameras", f"{', '.join(map(code, config.cameras))}; RGB {config.frame_size} x {config.frame_size}"),
        ("the robot's own state", f"{denoiser.proprio_dim} numbers" if denoiser.proprio_dim else "not read"),
        ("instruction", "text"),
        ("actions", f"chunks of {denoiser.num_actions}, {denoiser.action_dim} numbers each, in the dataset's units"),
        ("datasets", ", ".join(map(code, config.datasets))),
        ("video model", frozen),
        ("text encoder", encoder),
    ]
    needed = [f'"observation.images.{camera}": picture' for camera in config.cameras]
    needed += ['"observation.state": state'] if denoiser.proprio_dim else []
    use = _USE.replace("{observation}", "{" + ", ".join([*needed, '"task": "open the drawer"']) + "}")
    return hub_card(front, "Video Prediction Policy", about, table(("", ""), rows), use, *blocks, _SUCCESS, NO_LICENCE)
