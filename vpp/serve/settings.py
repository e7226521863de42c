"""What a server is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.errors import UsageError
from schemas.storage import exists, join

TOKEN_VARIABLE = "VPP_SERVE_TOKEN"
_CONFIG = "config.json"
_GPU_BATCH = 16


@dataclass(frozen=True)
class ServeSettings:
    """Serves a policy to robots, with openpi's protocol over WebSocket, for example:

    python jobs/serve.py --policy out/stage2 --port 8000

    /healthz and /metrics (Prometheus) are on the same port. If VPP_SERVE_TOKEN is set, clients must show it. SIGTERM
    and Ctrl-C answer what was asked and end. Also read from this job's section of vpp.yaml in the working directory, or
    of --config FILE.

    Raises:
        ValueError: If a value is outside its range.
    """

    policy: str = ""
    """Folder or URL of jobs/stage2.py or of its policy."""
    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 for every one of this machine."""
    port: int = 8000
    """0 for one that the system chooses."""
    dataset: str = ""
    """Whose actions come out, where the policy was trained on several."""
    video_model: str = ""
    """Where the video model lies now; by default where it lay in training."""
    codec: str = ""
    """Likewise, the VAE."""
    text_encoder: str = ""
    """Likewise, CLIP's text model."""
    batch_size: int = 0
    """Requests that are answered together at most; 0: 1 on a CPU, where batches gain nothing, and 16 on a GPU."""
    gather_ms: float = 2.0
    """A batch that is not full waits until no request has come for so long, as long as other robots are connected."""
    num_at_once: int = 1
    """Batches that are answered at the same time; on a CPU they share its cores: 1 answers a single robot soonest,
    as many as cores answer most robots."""
    replicas: int = 1
    """Copies of the policy, with Ray Serve where more than 1: a GPU each where there are GPUs."""
    max_waiting: int = 32
    """Requests that may wait for the policy; more are refused at once."""
    max_clients: int = 64
    """Robots that may be connected."""
    max_message_bytes: int = 0
    """Of a request; 0 for 4 MiB, or more where the policy's own pictures take more."""
    stop_timeout_s: float = 30.0
    """What was asked before a stop is answered for so long."""

    def __post_init__(self) -> None:
        least = {
            "port": 0, "batch_size": 0, "gather_ms": 0, "num_at_once": 1, "replicas": 1, "max_waiting": 0,
            "max_clients": 1, "max_message_bytes": 0, "stop_timeout_s": 0,
        }  # fmt: skip
        for name, number in least.items():
            if not getattr(self, name) >= number:
                option = f"--{name.replace('_', '-')}"
                raise ValueError(f"{option}: expected at least {number}, found {getattr(self, name)}")
        if self.port > 65535:
            raise ValueError(f"--port: expected at most 65535, found {self.port}")

    @property
    def policy_folder(self) -> str:
        """Folder of the policy itself.

        Raises:
            UsageError: If none is named.
        """
        if not self.policy:
            raise UsageError("--policy: expected a folder of jobs/stage2.py, found nothing")
        inner = join(self.policy, "policy")
        is_run = not exists(join(self.policy, _CONFIG)) and exists(join(inner, _CONFIG))
        return inner if is_run else self.policy

    def batch(self, has_gpu: bool) -> int:
        """Requests that are answered together at most."""
        return self.batch_size or (_GPU_BATCH if has_gpu else 1)
