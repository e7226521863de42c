"""Shows and judges what a video model predicts: from a picture and a text, or for clips whose truth is known.

<output>/prediction.json       settings, models, metrics, seconds
<output>/prediction.mp4, .gif  the predicted clip, beside the true one where it is known
<output>/prediction.png        every second frame of both
With several clips these three are written for each, named by its id.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder
from tqdm import tqdm

from runtime.settings import commit, to_mapping
from schemas.encoder import STAND_IN
from schemas.errors import UsageError
from schemas.storage import check_writable, join, write_bytes
from vpp.video.denoiser import DenoiserConfig, VideoDenoiser
from vpp.video.fvd import frechet_distance, i3d_features, load_i3d
from vpp.video.image_encoder import PUBLISHED_IMAGE_ENCODER, ClipImageEncoder, load_image_encoder
from vpp.video.metrics import compare_with_copy, frame_quality
from vpp.video.model_folder import find_model, loadable_name
from vpp.video.predict import predict_latents
from vpp.video.scenes import Scene, clip_scenes, picture_scene
from vpp.video.svd import ModelDescription, load_denoiser, read_description
from vpp.video.text_encoder import ClipTextEncoder, load_text_encoder
from vpp.video.vae import decode_latents, encode_frames, load_vae
from vpp.video.video_strip import film_strip_png, strip_gif, strip_mp4

_log = logging.getLogger(__name__)

PUBLISHED_TEXT_ENCODER = "openai/clip-vit-base-patch32"


@dataclass(frozen=True)
class PredictSettings:
    """Predicts videos from a first frame and a text, for example:

    python jobs/predict.py --video-model out/stage1 --image scene.png --text "open the drawer" --output out/predict

    python jobs/predict.py --video-model out/stage1 --data out/demo --clip CLIP_ID --output out/predict

    Also read from this job's section of vpp.yaml in the working directory, or of --config FILE.

    Raises:
        ValueError: If a value is outside its range.
    """

    video_model: str = ""
    """A run of jobs/stage1.py, or a folder, URL or hub id of a diffusers Stable Video Diffusion pipeline."""
    output: str = ""
    """Folder or URL to write to."""
    image: str = ""
    """File or URL of the first frame; it is stretched to 256x256 as clips are."""
    data: str = ""
    """Folder or URL that jobs/preprocess.py wrote, for `clip`."""
    clip: tuple[str, ...] = ()
    """Ids of clips of `data`, whose first frames are taken; what is predicted is judged by the rest."""
    other_view: str = ""
    """File or URL of the same scene from another camera, with `image`, for a model with an image condition; a clip's
    comes from `data`."""
    text: str = ""
    """What will be done in the video; a clip's own caption by default."""
    text_encoder: str = ""
    """Hub id or folder of CLIP's text encoder, or `tiny`; the one of the model's training data by default."""
    image_encoder: str = ""
    """Hub id or folder of CLIP's image encoder, or `tiny`, for `other_view`; the one the model was trained with by
    default."""
    i3d: str = ""
    """StyleGAN-V's i3d_torchscript.pt; with it and two or more clips the FVD is told too."""
    num_steps: int = 30
    """Euler steps."""
    guidance: tuple[float, float] = (1.0, 3.0)
    """Guidance at the first and the last frame; it grows linearly."""
    sigma_max: float = 700.0
    """Noise level to start from."""
    seed: int = 0
    """Of the noise, the same for each clip."""
    fps: float = 7.0
    """Frames a second at which videos are shown."""
    model: DenoiserConfig = field(default_factory=DenoiserConfig)
    """How a UNet without `vpp.json` is called, such as the authors' `svd-robot` with `position_encode`."""

    def __post_init__(self) -> None:
        if not (self.num_steps >= 1 and self.sigma_max > 0.002 and self.fps > 0):
            raise ValueError(
                "expected num_steps >= 1, sigma_max > 0.002 and fps > 0, found "
                f"{self.num_steps}, {self.sigma_max} and {self.fps}"
            )


def predict(settings: PredictSettings) -> dict[str, Any]:
    """Runs the job; returns what `prediction.json` holds.

    Raises:
        UsageError: If a setting is missing or wrong, or there is no such model, picture or clip.
    """
    began = time.perf_counter()
    _check(settings)
    folder = find_model(settings.video_model)
    described = read_description(folder)
    has_other_view = (described.denoiser if described else settings.model).image_condition
    _check_other_view(settings, has_other_view)
    if settings.image:
        frame_size = (described or ModelDescription()).frame_size
        scenes = [picture_scene(settings.image, settings.text, settings.other_view, frame_size)]
    else:
        scenes = clip_scenes(settings.data, settings.clip, settings.text, has_other_view)
    i3d = load_i3d(settings.i3d) if settings.i3d else None
    denoiser, description = load_denoiser(folder, settings.model)
    _check_model(denoiser, scenes, settings)
    vae, encoder = load_vae(folder), load_text_encoder(_text_encoder_name(settings, description))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    image_encoder = load_image_encoder(_image_encoder_name(settings, description), device) if has_other_view else None
    denoiser.eval().to(device)
    vae.eval().to(device)
    check_writable(settings.output)
    loaded = time.perf_counter()
    predictions = [_predict(settings, denoiser, vae, encoder, image_encoder, scene) for scene in scenes]
    predicted = time.perf_counter()
    shown = [decode_latents(vae, latents) for latents in predictions]
    files = [file for scene, clip in zip(scenes, shown, strict=True) for file in _show(settings, scene, clip[0])]
    judged = {} if settings.image else _judge(vae, i3d, scenes, torch.cat(predictions).cpu(), torch.cat(shown))
    record = {
        "settings": to_mapping(settings),
        "commit": commit(),
        "model": {"folder": folder, **to_mapping(description)},
        "text_encoder": encoder.model_id,
        **({"image_encoder": image_encoder.model_id} if image_encoder else {}),
        "stand_ins": _stand_ins(encoder, image_encoder, description),
        "texts": {scene.name: scene.text for scene in scenes},
        "files": files,
        **judged,
        "seconds": {
            "load": round(loaded - began, 3),
            "predict": round(predicted - loaded, 3),
            "show_and_judge": round(time.perf_counter() - predicted, 3),
        },
    }
    write_bytes(join(settings.output, "prediction.json"), json.dumps(record, indent=1).encode() + b"\n")
    return record


def _check(settings: PredictSettings) -> None:
    if not settings.video_model:
        raise UsageError("--video-model: expected a run of jobs/stage1.py or a model's folder, found nothing")
    if not settings.output:
        raise UsageError("--output: expected a folder or URL to write to, found nothing")
    if bool(settings.image) == bool(settings.clip):
        found = "both" if settings.image else "neither"
        raise UsageError(f"expected either --image FILE or --data DATASET --clip ID, found {found}")
    if settings.clip and not settings.data:
        raise UsageError("--clip: expected --data with it, the output of jobs/preprocess.py, found none")
    if settings.image and not settings.text:
        raise UsageError('--image: expected --text with it, such as "open the drawer", found none')


def _check_other_view(settings: PredictSettings, has_other_view: bool) -> None:
    model = f"--video-model {settings.video_model}"
    if settings.other_view and not has_other_view:
        raise UsageError(f"--other-view: expected a model with an image condition, found none in {model}")
    if settings.other_view and settings.clip:
        raise UsageError("--other-view: expected --image with it, found --clip, whose other camera comes from --data")
    if has_other_view and settings.image and not settings.other_view:
        raise UsageError(f"--other-view: expected a picture from another camera, as {model} takes one, found none")


def _check_model(denoiser: VideoDenoiser, scenes: list[Scene], settings: PredictSettings) -> None:
    config = denoiser.config
    found = {len(scene.frames) for scene in scenes} - {config.num_frames}
    if settings.clip and found:
        raise UsageError(
            f"--clip: expected clips of {config.num_frames} frames as the model predicts, found {min(found)} frames"
        )


def _text_encoder_name(settings: PredictSettings, description: ModelDescription) -> str:
    return settings.text_encoder or loadable_name(description.text_encoder) or PUBLISHED_TEXT_ENCODER


def _image_encoder_name(settings: PredictSettings, description: ModelDescription) -> str:
    return settings.image_encoder or loadable_name(description.image_encoder) or PUBLISHED_IMAGE_ENCODER


def _stand_ins(
    encoder: ClipTextEncoder, image_encoder: ClipImageEncoder | None, description: ModelDescription
) -> list[str]:
    """What stands in for a trained model, and so makes the prediction worth less than it could be."""
    found = [f"text encoder: {encoder.model_id}"] if encoder.is_stand_in else []
    if image_encoder and image_encoder.is_stand_in:
        found.append(f"image encoder: {image_encoder.model_id}")
    if description.latent_codec.startswith(f"{STAND_IN} ("):
        found.append(f"latent codec: {description.latent_codec}")
    return found


def _predict(
    settings: PredictSettings,
    denoiser: VideoDenoiser,
    vae: AutoencoderKLTemporalDecoder,
    encoder: ClipTextEncoder,
    image_encoder: ClipImageEncoder | None,
    scene: Scene,
) -> torch.Tensor:
    device = next(denoiser.parameters()).device
    _log.info("%s: %r", scene.name, scene.text)
    image = None
    if image_encoder:
        assert scene.other_view is not None
        image = image_encoder.encode(scene.other_view[None])
    with tqdm(total=settings.num_steps, desc=scene.name, unit="step", disable=None) as progress:
        return predict_latents(
            denoiser,
            encode_frames(vae, scene.frames[None, :1])[:, 0],
            torch.from_numpy(encoder.encode([scene.text])).to(device).float(),
            num_steps=settings.num_steps,
            guidance=settings.guidance,
            sigma_max=settings.sigma_max,
            generator=torch.Generator().manual_seed(settings.seed),
            image=image,
            on_step=progress.update,
        )


def _show(settings: PredictSettings, scene: Scene, predicted: torch.Tensor) -> list[str]:
    truth = None if settings.image else scene.frames.numpy()
    contents = {
        "mp4": strip_mp4(truth, predicted.numpy(), scene.text, settings.fps),
        "gif": strip_gif(truth, predicted.numpy(), scene.text, settings.fps),
        "png": film_strip_png(truth, predicted.numpy(), scene.text),
    }
    for ending, content in contents.items():
        write_bytes(join(settings.output, f"{scene.name}.{ending}"), content)
    return [f"{scene.name}.{ending}" for ending in contents]


def _judge(
    vae: AutoencoderKLTemporalDecoder, i3d: Any, scenes: list[Scene], latents: torch.Tensor, shown: torch.Tensor
) -> dict[str, Any]:
    """Metrics over all clips: by frame, over the 8th to the last frame, and the FVD."""
    truth = torch.stack([scene.frames for scene in scenes])
    quality = frame_quality(shown, truth)
    true_latents = torch.cat([encode_frames(vae, clip[None]).cpu() for clip in truth])
    metrics: dict[str, Any] = {
        "frames_8_to_last": quality.mean(),
        "pixels": compare_with_copy(shown, truth).summary(),
        "latents": compare_with_copy(latents, true_latents).summary(),
        "by_frame": {name: [round(float(value), 4) for value in values] for name, values in vars(quality).items()},
    }
    if i3d is None:
        return {"metrics": metrics, "fvd": None, "fvd_remark": "not reported: needs --i3d FILE"}
    if len(scenes) < 2:
        return {"metrics": metrics, "fvd": None, "fvd_remark": "not reported: needs at least two clips"}
    distance = frechet_distance(i3d_features(i3d, shown), i3d_features(i3d, truth))
    return {"metrics": metrics, "fvd": distance, "fvd_remark": f"of {len(scenes)} clips; published ones take hundreds"}
