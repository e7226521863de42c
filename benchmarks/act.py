"""From camera images to an action chunk at the published size on a CPU, against the published order of work.

    OMP_NUM_THREADS=2 python benchmarks/act.py [--json] [--rounds 5]

Two views of 256x256, 16 frames, the UNet of preset `svd` cut after up-block 1, Video Former and action denoiser as
published, all with random weights, in one process. Both sides have the same weights and noise, and take turns:

- ours: `FeatureExtractor`, which was told the instruction before; VAE encoder with the channels last; Video Former and
  action denoiser in bfloat16; the context encoded once
- plain: diffusers' UNet and VAE in bfloat16 as they are called without more ado, the caption's keys and values made in
  each call; Video Former and action denoiser in float32, the context encoded at each of the ten sampler steps

The instruction is told once for a task of hundreds of calls, so its time is given apart. Operations are those that a
side carries out in matrix products, convolutions and attention; ours has fewer in the UNet. The rate of matrix
products is that of 4096x4096 in bfloat16, measured in the same rounds. Each figure is the median over rounds, by the
clock and by the processor's time, which is steadier where others use the machine. How far the actions of both sides
lie apart is told too: it is bfloat16's rounding.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Callable
from typing import Any

import measure
import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch import nn
from torch.nn.functional import interpolate
from torch.utils.flop_counter import FlopCounterMode

from vpp.diffusion.samplers import ddim
from vpp.diffusion.sigmas import exponential_sigmas
from vpp.policy.action_denoiser import ActionDenoiser, ActionDenoiserConfig
from vpp.policy.objective import sample_actions
from vpp.policy.video_former import VideoFormer, VideoFormerConfig
from vpp.video.conditioning import cross_attention_states, time_ids
from vpp.video.denoiser import DenoiserConfig, VideoDenoiser
from vpp.video.feature_settings import FeatureSettings
from vpp.video.features import FeatureExtractor, view_noise
from vpp.video.svd import cut_unet, unet_from_scratch

NUM_FRAMES, NUM_VIEWS, SIZE_PX, SIDE = 16, 2, 256, 4096
STAGES = ("vae", "unet", "former", "sampler")
SIGMA, SIGMA_MIN, SIGMA_MAX, NUM_STEPS = 80.0, 1.0, 80.0, 10


def full_size_vae() -> AutoencoderKLTemporalDecoder:
    """The encoder of Stable Video Diffusion's VAE."""
    vae = AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * 4, block_out_channels=(128, 256, 512, 512), layers_per_block=2
    )
    vae.decoder = nn.Identity()
    return vae.eval()


class Ours:
    """Each stage as a robot would run it."""

    def __init__(self, models: dict[str, Any], text: torch.Tensor, goal: torch.Tensor, noise: torch.Tensor) -> None:
        self.vae = copy.deepcopy(models["vae"])
        self.vae.encoder.to(memory_format=torch.channels_last)
        self.extractor = FeatureExtractor(models["denoiser"], FeatureSettings(sigma=SIGMA))
        self.text, self.goal, self.noise = text, goal, noise
        self.former = copy.deepcopy(models["former"]).bfloat16()
        self.denoiser = copy.deepcopy(models["actions"]).bfloat16()
        self.instruction = self.extractor.instruct(text)

    def _vae(self, pixels: torch.Tensor) -> torch.Tensor:
        return encode(self.vae, pixels.to(memory_format=torch.channels_last))

    def _unet(self, latents: torch.Tensor) -> torch.Tensor:
        return self.extractor(latents[None], self.instruction)

    def _former(self, features: torch.Tensor) -> torch.Tensor:
        return self.former(features)

    def _sampler(self, tokens: torch.Tensor) -> torch.Tensor:
        context = self.denoiser.encode(tokens, self.goal)
        return sample_actions(self.denoiser, context, self.noise, NUM_STEPS, SIGMA_MIN, SIGMA_MAX)


class Plain:
    """Each stage in the published order of work."""

    def __init__(self, models: dict[str, Any], text: torch.Tensor, goal: torch.Tensor, noise: torch.Tensor) -> None:
        self.vae, self.unet, self.config = models["vae"], models["denoiser"].unet, models["denoiser"].config
        self.former, self.denoiser = models["former"], models["actions"]
        self.states = cross_attention_states(text).bfloat16().expand(NUM_VIEWS, -1, -1)
        self.goal, self.noise = goal, noise
        shape = (NUM_FRAMES, 4, SIZE_PX // 8, SIZE_PX // 8)
        self.video_noise = torch.stack([view_noise(0, view, shape) for view in range(NUM_VIEWS)])

    def _vae(self, pixels: torch.Tensor) -> torch.Tensor:
        return encode(self.vae, pixels)

    def _unet(self, latents: torch.Tensor) -> torch.Tensor:
        still = (latents / self.config.scaling_factor)[:, None].expand_as(self.video_noise)
        first: list[torch.Tensor] = []
        hook = self.unet.up_blocks[0].register_forward_hook(lambda block, inputs, output: first.append(output))
        last = self.unet(
            torch.cat([self.video_noise, still], dim=2).bfloat16(),
            torch.tensor(math.log(SIGMA) / 4),
            encoder_hidden_states=self.states,
            added_time_ids=time_ids(self.config.fps, self.config.motion_bucket_id, torch.zeros(NUM_VIEWS)),
            return_dict=False,
        )[0].flatten(0, 1)
        hook.remove()
        joined = torch.cat([interpolate(first[0], last.shape[-2:]), last], dim=1)
        by_view = joined.flatten(2).transpose(1, 2).unflatten(0, (NUM_VIEWS, NUM_FRAMES))
        return by_view.transpose(0, 1).flatten(1, 2)[None]

    def _former(self, features: torch.Tensor) -> torch.Tensor:
        return self.former(features.float())

    def _sampler(self, tokens: torch.Tensor) -> torch.Tensor:
        def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            return self.denoiser(x, sigma.expand(len(x)), self.denoiser.encode(tokens, self.goal))

        return ddim(denoise, self.noise * SIGMA_MAX, exponential_sigmas(NUM_STEPS, SIGMA_MIN, SIGMA_MAX))


def encode(vae: AutoencoderKLTemporalDecoder, pixels: torch.Tensor) -> torch.Tensor:
    """Scaled latents `[N, 4, h, w]`."""
    return vae.encode(pixels.bfloat16()).latent_dist.mode().float() * vae.config.scaling_factor


def run(side: Ours | Plain, pixels: torch.Tensor, timed: Callable[[str, Callable], Any]) -> torch.Tensor:
    """The whole chain."""
    x = pixels
    for stage in STAGES:
        x = timed(stage, lambda stage=stage, x=x: getattr(side, f"_{stage}")(x))
    return x


def operations(side: Ours | Plain, pixels: torch.Tensor) -> dict[str, float]:
    """Floating point operations of each stage, in TFLOP."""

    def of_linear(x: Any, *others: Any, out_shape: Any = None, **options: Any) -> int:
        return 2 * math.prod(out_shape) * x[-1]

    def of_attention(query: Any, key: Any, *others: Any, out_shape: Any = None, **options: Any) -> int:
        return 4 * math.prod(query) * key[-2]

    known_here_only = {
        torch.ops.mkldnn._linear_pointwise: of_linear,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: of_attention,
    }
    found: dict[str, float] = {}

    def counted(stage: str, call: Callable) -> Any:
        with FlopCounterMode(display=False, custom_mapping=known_here_only) as counter:
            result = call()
        found[stage] = counter.get_total_flops() / 1e12
        return result

    run(side, pixels, counted)
    return found


def stopwatch(into: dict[str, list[torch.Tensor]], prefix: str) -> Callable[[str, Callable], Any]:
    """Notes seconds of the clock and of the processor."""

    def timed(stage: str, call: Callable) -> Any:
        clock, cpu = time.perf_counter(), time.process_time()
        result = call()
        spent = torch.tensor([time.perf_counter() - clock, time.process_time() - cpu], dtype=torch.float64)
        into.setdefault(prefix + stage, []).append(spent)
        return result

    return timed


def figures_of(seconds: dict[str, list[torch.Tensor]], tflop: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Medians over rounds; ratios are medians of each round's ratio."""
    rounds = {name: torch.stack(values) for name, values in seconds.items()}
    for side in ("ours", "plain"):
        rounds[f"{side}_chain"] = torch.stack([rounds[f"{side}_{stage}"] for stage in STAGES]).sum(0)
    median = {name: values.median(0).values.tolist() for name, values in rounds.items()}
    figures: dict[str, Any] = {}
    for side in ("ours", "plain"):
        for stage in (*STAGES, "chain"):
            figures[f"{side}_{stage}_s"], figures[f"{side}_{stage}_cpu_s"] = median[f"{side}_{stage}"]
            if stage != "chain":
                figures[f"{side}_{stage}_tflop"] = tflop[side][stage]
    for stage in (*STAGES, "chain"):
        ratio = (rounds[f"plain_{stage}"] / rounds[f"ours_{stage}"]).median(0).values.tolist()
        figures[f"ratio_{stage}"], figures[f"ratio_{stage}_cpu"] = ratio
    product = 2 * SIDE**3 / 1e12
    figures["matmul_tflop_per_s"], figures["matmul_tflop_per_cpu_s"] = (product / part for part in median["matmul"])
    for side, name in (("ours", "unet"), ("plain", "plain_unet")):
        share = (tflop[side]["unet"] / rounds[f"{side}_unet"]) / (product / rounds["matmul"])
        figures[f"{name}_fraction_of_matmul"], figures[f"{name}_fraction_of_matmul_cpu"] = share.median(
            0
        ).values.tolist()
    return figures


@torch.no_grad()
def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)  # so that 1.5 G weights are never there in float32
    unet = cut_unet(unet_from_scratch("svd", NUM_FRAMES), 1).eval()
    vae = full_size_vae()
    torch.set_default_dtype(torch.float32)
    models = {
        "vae": vae,
        "denoiser": VideoDenoiser(unet, DenoiserConfig(num_frames=NUM_FRAMES)),
        "former": VideoFormer(VideoFormerConfig(), 2560, NUM_FRAMES).eval(),
        "actions": ActionDenoiser(ActionDenoiserConfig()).eval(),
    }
    for model in models.values():
        model.requires_grad_(False)
    pixels = torch.rand(NUM_VIEWS, 3, SIZE_PX, SIZE_PX) * 2 - 1
    told = torch.randn(1, 20, 512), torch.randn(1, 512), torch.randn(1, 10, 7)
    sides: dict[str, Ours | Plain] = {"ours": Ours(models, *told), "plain": Plain(models, *told)}
    tflop = {name: operations(side, pixels) for name, side in sides.items()}  # warms up, too

    left, right, product = (torch.randn(SIDE, SIDE).bfloat16() for _ in range(3))
    seconds: dict[str, list[torch.Tensor]] = {}
    actions: dict[str, torch.Tensor] = {}
    for number in range(arguments.rounds):
        repeated: dict[str, list[torch.Tensor]] = {}
        for _ in range(12):  # into memory that is there: new pages would cost a fifth of its rate
            stopwatch(repeated, "")("matmul", lambda: torch.mm(left, right, out=product))
        seconds.setdefault("matmul", []).append(torch.stack(repeated["matmul"]).median(0).values)
        for name in ("ours", "plain") if number % 2 else ("plain", "ours"):
            actions[name] = run(sides[name], pixels, stopwatch(seconds, f"{name}_"))
    ours = sides["ours"]
    assert isinstance(ours, Ours)
    stopwatch(seconds, "ours_")("instruct", lambda: ours.extractor.instruct(ours.text))
    difference = float((actions["ours"] - actions["plain"]).norm() / actions["plain"].norm())
    instruct_s = float(seconds.pop("ours_instruct")[0][0])
    figures = figures_of(seconds, tflop) | {"ours_instruct_s": instruct_s, "actions_relative_difference": difference}
    measure.finish(figures | {"threads": torch.get_num_threads(), "rounds": arguments.rounds}, arguments.json)


if __name__ == "__main__":
    main()
