"""Video models go out as diffusers pipelines and come back the same, from any storage; what is no model is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder, StableVideoDiffusionPipeline, UNetSpatioTemporalConditionModel
from s3 import S3Server
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from schemas import storage
from schemas.encoder import STAND_IN
from schemas.errors import UsageError
from vpp.video.denoiser import DenoiserConfig
from vpp.video.latent_codec import load_latent_codec
from vpp.video.svd import (
    DESCRIPTION,
    ModelDescription,
    cut_unet,
    load_denoiser,
    read_description,
    save_pipeline,
    unet_from_scratch,
)
from vpp.video.vae import codec_id, encode_frames, load_vae

DESCRIBED = ModelDescription(DenoiserConfig(position_encode=True, fps=4.0), "clip@1", "vae@2", "clip@3", "step 3")
WEIGHTS = "diffusion_pytorch_model"


@pytest.fixture(scope="module")
def unet() -> UNetSpatioTemporalConditionModel:
    return unet_from_scratch("tiny", seed=1)


@pytest.fixture(scope="module")
def vae() -> AutoencoderKLTemporalDecoder:
    return load_latent_codec(STAND_IN)._vae


@pytest.fixture
def pipeline(tmp_path: Path, unet: UNetSpatioTemporalConditionModel, vae: AutoencoderKLTemporalDecoder) -> Path:
    """A folder as others publish it: no `vpp.json`."""
    save_pipeline(str(tmp_path / "svd-robot"), unet, vae, ModelDescription())
    (tmp_path / "svd-robot" / DESCRIPTION).unlink()
    return tmp_path / "svd-robot"


def output(unet: UNetSpatioTemporalConditionModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(1, 4, 8, 8, 8, generator=generator)
    text = torch.randn(1, 20, 1024, generator=generator)
    with torch.no_grad():
        return unet(sample, torch.tensor(0.3), text, torch.tensor([[7.0, 127.0, 0.0]]), return_dict=False)[0]


def assert_same_weights(found: torch.nn.Module, expected: torch.nn.Module) -> None:
    found_state, expected_state = found.state_dict(), expected.state_dict()
    assert found_state.keys() == expected_state.keys()
    for name, tensor in expected_state.items():
        torch.testing.assert_close(found_state[name], tensor.float(), rtol=0, atol=0)


@pytest.fixture(params=["local", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "runs" / "model")
    request.getfixturevalue("s3")
    return "s3://bucket/runs/model"


def test_a_saved_model_comes_back_from_any_storage(url: str, unet, vae) -> None:
    save_pipeline(url, unet, vae, DESCRIBED)
    denoiser, description = load_denoiser(url, fallback=DenoiserConfig(fps=1.0))
    assert description == DESCRIBED == read_description(url)
    assert denoiser.config == DESCRIBED.denoiser
    assert_same_weights(denoiser.unet, unet)
    assert_same_weights(load_vae(url), vae)


def test_diffusers_opens_a_saved_model_and_computes_the_same(tmp_path: Path, unet, vae) -> None:
    save_pipeline(str(tmp_path / "model"), unet, vae, DESCRIBED)
    opened = StableVideoDiffusionPipeline.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(output(opened.unet), output(unet), rtol=0, atol=0)
    assert opened.scheduler.config.prediction_type == "v_prediction"


def test_saving_again_replaces_the_model_and_keeps_other_files(url: str, unet, vae) -> None:
    save_pipeline(url, unet_from_scratch("tiny", seed=2), vae, ModelDescription())
    stale, other = storage.join(url, "unet", f"{WEIGHTS}.safetensors.index.json"), storage.join(url, "notes.txt")
    storage.write_bytes(stale, b"{}")
    storage.write_bytes(other, b"mine")
    save_pipeline(url, unet, vae, DESCRIBED)
    denoiser, _ = load_denoiser(url)
    assert_same_weights(denoiser.unet, unet)
    assert not storage.exists(stale)
    assert storage.read_bytes(other) == b"mine"


def test_a_save_that_dies_leaves_no_model(tmp_path: Path, unet, vae, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(UNetSpatioTemporalConditionModel, "save_pretrained", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_pipeline(str(tmp_path / "model"), unet, vae, DESCRIBED)
    assert list(tmp_path.iterdir()) == []


def test_an_upload_that_dies_is_not_taken_for_a_model(s3: S3Server, unet, vae, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "s3://bucket/model"
    save_pipeline(url, unet, vae, DESCRIBED)
    fs, _ = storage.filesystem(url)  # one instance a process
    upload = fs.put_file

    def cut(source: str, target: str) -> None:
        if target.endswith(f"{WEIGHTS}.safetensors"):
            raise ConnectionError("cut")
        upload(source, target)

    monkeypatch.setattr(fs, "put_file", cut)
    monkeypatch.setattr("vpp.video.model_folder._RETRY_S", 0.0)
    with pytest.raises(ConnectionError):
        save_pipeline(url, unet, vae, DESCRIBED)
    with pytest.raises(UsageError, match=r"found no model_index\.json"):
        load_denoiser(url)


def test_a_published_folder_loads_with_the_callers_config(pipeline: Path, unet) -> None:
    denoiser, description = load_denoiser(str(pipeline), fallback=DenoiserConfig(position_encode=True))
    assert denoiser.config.position_encode
    assert description.trained_by == ""
    assert_same_weights(denoiser.unet, unet)
    plain, _ = load_denoiser(str(pipeline))
    assert plain.config == DenoiserConfig()


@pytest.mark.parametrize(
    "options", [{"variant": "fp16"}, {"max_shard_size": "1MB"}, {"variant": "fp16", "max_shard_size": "1MB"}]
)
def test_half_precision_and_sharded_weights_load(pipeline: Path, unet, options: dict[str, str]) -> None:
    shutil.rmtree(pipeline / "unet")
    written = unet_from_scratch("tiny", seed=1)
    if "variant" in options:
        written.half()
    written.save_pretrained(pipeline / "unet", **options)
    files = sorted(path.name for path in (pipeline / "unet").iterdir())
    assert all("fp16" in name for name in files if "safetensors" in name) == ("variant" in options)
    assert any("index" in name for name in files) == ("max_shard_size" in options)
    denoiser, _ = load_denoiser(str(pipeline))
    assert next(denoiser.parameters()).dtype == torch.float32
    assert_same_weights(denoiser.unet, written)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the weights that are read one by one."""
    names: list[str] = []

    class Recording:
        def __init__(self, *args: object, **kwargs: object) -> None:
            self.opening = safe_open(*args, **kwargs)

        def __enter__(self) -> Recording:
            self.opened = self.opening.__enter__()
            return self

        def __exit__(self, *exception: object) -> None:
            self.opening.__exit__(*exception)

        def keys(self) -> list[str]:
            return self.opened.keys()

        def get_tensor(self, name: str) -> torch.Tensor:
            names.append(name)
            return self.opened.get_tensor(name)

    monkeypatch.setattr("vpp.video.partial_weights.safe_open", Recording)
    return names


@pytest.mark.parametrize(
    "options", [{}, {"variant": "fp16"}, {"max_shard_size": "1MB"}, {"variant": "fp16", "max_shard_size": "1MB"}]
)
def test_of_a_part_of_the_unet_no_other_weights_are_read(pipeline: Path, unet, read, options: dict[str, str]) -> None:
    shutil.rmtree(pipeline / "unet")
    unet.save_pretrained(pipeline / "unet", **options)
    whole, _ = load_denoiser(str(pipeline))
    denoiser, _ = load_denoiser(str(pipeline), last_block=1)
    expected = cut_unet(whole.unet, 1)
    assert_same_weights(denoiser.unet, expected)
    assert sorted(read) == sorted(expected.state_dict())
    assert not any(name.startswith(("up_blocks.2", "up_blocks.3", "conv_norm_out", "conv_out")) for name in read)
    assert not denoiser.unet.training
    assert {weights.dtype for weights in denoiser.parameters()} == {torch.float32}


def test_a_cut_unet_is_a_copy_that_ends_sooner(unet) -> None:
    before = list(unet.state_dict())
    cut = cut_unet(unet, 1)
    assert len(cut.up_blocks) == 2
    assert list(unet.state_dict()) == before
    for last_block in (-1, 4):
        with pytest.raises(ValueError, match="up-block from 0 to 3"):
            cut_unet(unet, last_block)


def test_of_the_vaes_encoder_no_other_weights_are_read(url: str, unet, vae, read) -> None:
    save_pipeline(url, unet, vae, DESCRIBED)
    encoder = load_vae(url, encoder_only=True)
    assert {name.split(".")[0] for name in read} == {"encoder", "quant_conv"}
    frames = torch.randint(256, (1, 2, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(encode_frames(encoder, frames), encode_frames(vae, frames))
    assert codec_id(encoder, "a") == codec_id(vae, "a")


def rewrite(pipeline: Path, **options: object) -> None:
    """Another UNet in the place of the one that is there."""
    shutil.rmtree(pipeline / "unet")
    unet_config = dict(unet_from_scratch("tiny").config) | {"_use_default_values": []} | options
    UNetSpatioTemporalConditionModel.from_config(unet_config).save_pretrained(pipeline / "unet")


def pickled(pipeline: Path) -> None:
    shutil.rmtree(pipeline / "unet")
    unet_from_scratch("tiny").save_pretrained(pipeline / "unet", safe_serialization=False)
    assert (pipeline / "unet" / f"{WEIGHTS}.bin").is_file()


def truncated(pipeline: Path) -> None:
    weights = pipeline / "unet" / f"{WEIGHTS}.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def incomplete(pipeline: Path) -> None:
    weights = pipeline / "unet" / f"{WEIGHTS}.safetensors"
    save_file({name: tensor for name, tensor in load_file(weights).items() if "mid_block" not in name}, weights)


def of_other_width(pipeline: Path) -> None:
    config = pipeline / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"block_out_channels": [32, 32, 64, 128]}))


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing folder": (shutil.rmtree, "svd-robot"),
    "no UNet": (lambda folder: shutil.rmtree(folder / "unet"), "svd-robot"),
    "no pipeline": (lambda folder: (folder / "model_index.json").unlink(), r"found no model_index\.json"),
    "no config": (lambda folder: (folder / "unet" / "config.json").unlink(), "svd-robot"),
    "garbled config": (lambda folder: (folder / "unet" / "config.json").write_text("{"), "svd-robot"),
    "pickle": (pickled, "safetensors"),
    "truncated": (truncated, "svd-robot"),
    "half of the weights": (incomplete, "found none for"),
    "weights of another size": (of_other_width, "svd-robot"),
    "cross-attention width": (lambda folder: rewrite(folder, cross_attention_dim=768), r"width 1024, found \(8, 4, 768"),
    "no first frame": (lambda folder: rewrite(folder, in_channels=4), r"8 input and 4 output channels.*found \(4, 4"),
    "garbled vpp.json": (lambda folder: (folder / DESCRIPTION).write_text("{"), r"vpp\.json: expected JSON"),
    "vpp.json in Latin-1": (lambda folder: (folder / DESCRIPTION).write_bytes(b'{"a": "\xe9"}'), "expected JSON"),
    "vpp.json of a list": (lambda folder: (folder / DESCRIPTION).write_text("[]"), r"vpp\.json: expected settings"),
    "vpp.json of others": (lambda folder: (folder / DESCRIPTION).write_text('{"x": 1}'), "unknown setting x"),
    "vpp.json out of range": (
        lambda folder: (folder / DESCRIPTION).write_text('{"denoiser": {"sigma_data": -1}}'), "sigma_data > 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("last_block", [None, 1])
def test_what_is_no_model_is_the_users_mistake_in_one_line(pipeline: Path, fault: str, last_block: int | None) -> None:
    spoil, expected = FAULTS[fault]
    spoil(pipeline)
    with pytest.raises(UsageError, match=expected) as error:
        load_denoiser(str(pipeline), last_block=last_block)
    assert "\n" not in str(error.value)


def test_a_pickled_vae_or_image_encoder_is_refused(pipeline: Path, tmp_path: Path, unet, vae) -> None:
    for part in ("vae", "image_encoder"):
        for path in (pipeline / part).glob("*.safetensors"):
            path.rename(path.with_suffix(".bin"))
    with pytest.raises(UsageError, match=r"latent codec .*svd-robot"):
        load_vae(str(pipeline))
    with pytest.raises(UsageError, match=r"image encoder of .*svd-robot"):
        save_pipeline(str(tmp_path / "model"), unet, vae, DESCRIBED, base=str(pipeline))


def test_the_image_encoder_of_a_base_goes_along(pipeline: Path, tmp_path: Path, unet, vae) -> None:
    config = pipeline / "feature_extractor" / "preprocessor_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"image_mean": [0.1, 0.2, 0.3]}))
    save_pipeline(str(tmp_path / "model"), unet, vae, DESCRIBED, base=str(pipeline))
    opened = StableVideoDiffusionPipeline.from_pretrained(tmp_path / "model")
    assert tuple(opened.feature_extractor.image_mean) == (0.1, 0.2, 0.3)
