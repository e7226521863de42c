"""The whole job on every format at once, broken inputs mixed in, to disk and to S3."""

from __future__ import annotations

import io
import json
import re
import runpy
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import webdataset
from layouts import write_calvin, write_ego4d, write_vpp_layout
from running import ROOT, product_files, run
from s3 import S3Server

from pipelines.encode_video import decode_video
from pipelines.plan_files import write_request
from pipelines.preprocess import preprocess
from pipelines.query import Manifest
from pipelines.range_read import read_members
from pipelines.request import PreprocessSettings
from schemas.errors import UsageError
from schemas.storage import list_files, read_bytes


def check_output(output: str) -> dict:
    """Counts add up, tars open with webdataset, and each clip reads the same by its byte range."""
    summary = json.loads(read_bytes(f"{output}/summary.json"))
    manifest = Manifest(output)
    for dataset, products in summary["datasets"].items():
        for product, counts in products.items():
            sql = f"select status, count(*) as num from {product} where dataset = ? group by all"
            rows = {row["status"]: row["num"] for row in manifest.select(sql, [dataset]).to_pylist()}
            assert rows == {name: counts[name] for name in ("written", "rejected", "filtered") if counts[name]}
            assert counts["planned"] == sum(rows.values())
            assert sum(counts["reasons"].values()) == counts["rejected"] + counts["filtered"]
    written = manifest.select("select * from clips where status = 'written'").to_pylist()
    by_tar: dict[str, dict[str, dict]] = {}
    for row in written:
        members = read_members(output, "clips", row)
        if row["shard"] not in by_tar:
            content = read_bytes(f"{output}/clips/shards/{row['shard']}")
            samples = webdataset.tariterators.tar_file_expander([{"stream": io.BytesIO(content), "url": row["shard"]}])
            grouped = webdataset.tariterators.group_by_keys(samples)
            by_tar[row["shard"]] = {sample["__key__"]: sample for sample in grouped}
        sample = by_tar[row["shard"]][row["clip_id"]]
        assert members == {name: sample[name] for name in members}
        assert decode_video(members["mp4"]).shape == (16, 256, 256, 3)
        assert np.load(io.BytesIO(members["text.npy"])).shape == (20, 512)
        assert members["txt"].decode() == row["caption"]
        assert len(row["frame_indices"]) == 16
    assert sum(len(samples) for samples in by_tar.values()) == len(written)
    return summary


def own_sources(root: Path) -> list[str]:
    """Small sets in three formats that the test writes itself."""
    write_vpp_layout(root / "vpp", num_episodes=3, num_frames=40)
    write_calvin(root / "calvin", [(100, 149)], [(100, 130, "push the button"), (120, 149, "open the drawer")])
    told = {"narrations": [{"timestamp_sec": float(t), "narration_text": f"#C C does {t}"} for t in range(2, 10, 3)]}
    write_ego4d(root / "ego", {"a": {}}, {"a": {"narration_pass_1": told, "status": "complete"}})
    return [f"vpp=vpp-layout:{root}/vpp", f"calvin=calvin:{root}/calvin", f"ego=ego4d:{root}/ego"]


def test_a_run_to_disk_and_a_run_to_s3_have_the_same_bytes(tmp_path: Path, s3: S3Server) -> None:
    sources = own_sources(tmp_path)
    for output in (str(tmp_path / "disk"), "s3://bucket/out"):
        code, printed = run(
            "preprocess", "--sources", *sources, "--output", output, "--text-encoder", "tiny", cwd=tmp_path
        )
        assert code == 0, printed
        check_output(output)
    assert product_files(tmp_path / "disk") == product_files(tmp_path / "s3" / "bucket" / "out")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (block,) = [text for text in blocks if "decode_video" in text]
    shown: dict = {}
    exec(block.replace("out/demo", str(tmp_path / "disk")), shown)
    assert decode_video(shown["clip"]["mp4"]).shape == (16, 256, 256, 3)
    tars = [name for name in list_files(str(tmp_path / "disk")) if name.endswith(".tar")]
    for tar in tars:
        subprocess.run(["tar", "tf", str(tmp_path / "disk" / tar)], check=True, capture_output=True)


def test_settings_may_stand_in_a_file_and_a_second_run_finds_all_done(tmp_path: Path) -> None:
    source = write_vpp_layout(tmp_path / "set", num_episodes=2, num_frames=20)
    config = f"preprocess:\n  sources: ['d=vpp-layout:{source}']\n  output: {tmp_path}/out\n  text_encoder: none\n"
    (tmp_path / "vpp.yaml").write_text(config)
    assert run("preprocess", cwd=tmp_path)[0] == 0
    before = product_files(tmp_path / "out")
    code, printed = run("preprocess", cwd=tmp_path)
    assert (code, product_files(tmp_path / "out")) == (0, before)
    assert "0 shards, 0 clips" in printed
    code, printed = run("preprocess", "--window.max-frames", "10", cwd=tmp_path)
    assert code == 2
    assert "begun with other settings" in printed
    more = f"more=vpp-layout:{source}"
    code, printed = run("preprocess", "--sources", f"d=vpp-layout:{source}", more, cwd=tmp_path)
    assert code == 0, printed
    assert before.items() <= product_files(tmp_path / "out").items()


def test_a_dataset_that_was_only_begun_cannot_be_changed_either(tmp_path: Path) -> None:
    source = write_vpp_layout(tmp_path / "set", num_episodes=1, num_frames=20)
    write_request(str(tmp_path / "out"), "d", {"source": "another"}, ["train/0.json/0.json"])
    settings = PreprocessSettings(sources=(f"d=vpp-layout:{source}",), output=str(tmp_path / "out"))
    with pytest.raises(UsageError, match="begun with other settings"):
        preprocess(settings, None, None)
    assert not (tmp_path / "out" / "clips").exists()


MISTAKES = {
    "a missing source": (["--sources", "d=calvin:{tmp}/nowhere"], "nowhere"),
    "an unknown kind": (["--sources", "d=vhs:{tmp}"], "unknown kind 'vhs'"),
    "a wrong form": (["--sources", "just-a-path"], "NAME=KIND:URL"),
    "the same name twice": (["--sources", "d=vpp-layout:{tmp}/set", "d=vpp-layout:{tmp}/set"], "d more than once"),
    "an unknown option": (["--sources", "d=vpp-layout:{tmp}/set#colour=red"], "colour"),
    "a wrong window of a source": (["--sources", "d=vpp-layout:{tmp}/set#window.stride=0"], "stride"),
    "a wrong window": (["--sources", "d=vpp-layout:{tmp}/set", "--window.hop", "0"], "hop"),
    "an unwritable output": (["--sources", "d=vpp-layout:{tmp}/set", "--output", "{tmp}/file/below"], "cannot write"),
    "an unknown protocol": (["--sources", "d=vpp-layout:{tmp}/set", "--output", "gopher://x/y"], "gopher"),
    "no output": (["--sources", "d=vpp-layout:{tmp}/set", "--output", ""], "--output"),
    "no source": (["--output", "{tmp}/out"], "--sources"),
    "an unknown setting": (["--frobnicate", "3"], "frobnicate"),
    "an unknown encoder": (
        ["--sources", "d=vpp-layout:{tmp}/set", "--text-encoder", "{tmp}/no-clip"],
        "--text-encoder",
    ),
    "no such file of settings": (["--config", "{tmp}/none.yaml"], "no such file"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_of_the_user_is_one_line_and_code_2(
    tmp_path: Path, mistake: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_vpp_layout(tmp_path / "set", num_episodes=1, num_frames=20)
    (tmp_path / "file").write_text("")
    arguments, expected = MISTAKES[mistake]
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    if "--output" not in given:
        given += ["--output", str(tmp_path / "out")]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["preprocess.py", *given])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "jobs" / "preprocess.py"), run_name="__main__")
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert expected in printed.err + printed.out
    if mistake not in ("an unknown setting", "a wrong window"):  # these the command line's parser tells, in a box
        assert len([line for line in printed.err.splitlines() if line.startswith("error:")]) == 1
    assert not ray.is_initialized()
    assert not list((tmp_path / "out").rglob("request.json"))  # so the corrected command is not refused


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """Copies of the real samples with every broken file put where its kind belongs."""
    root = tmp_path_factory.mktemp("mixed")
    for name in ("openx_rlds", "openx_lerobot", "vpp_layout", "calvin_sim", "ego4d_shaped"):
        shutil.copytree(shared_data / name, root / name, copy_function=shutil.copyfile)
    for folder in root.rglob("*"):
        folder.chmod(0o755)
    broken = shared_data / "broken"
    for name in ("bad_crc.tfrecord", "truncated.tfrecord"):
        shutil.copyfile(broken / name, root / "openx_rlds/bridge_dataset/1.0.0" / name)
    training = root / "calvin_sim/task_sample/training"
    shutil.copyfile(broken / "calvin_missing_key.npz", training / "episode_0358482.npz")
    shutil.copyfile(broken / "calvin_truncated.npz", training / "episode_0358590.npz")
    validation = root / "calvin_sim/task_sample/validation"
    shutil.copyfile(broken / "evil_lang_ann.npy", validation / "lang_annotations/auto_lang_ann.npy")
    bridge = root / "vpp_layout/bridge"
    shutil.copyfile(broken / "latents_evil.pt", bridge / "latent_videos_svd/val/2/0.pt")
    shutil.copyfile(broken / "annotation_missing_video.json", bridge / "annotation/val/9999.json")
    shutil.copyfile(broken / "bad_json.json", bridge / "annotation/val/bad.json")
    for number, name in enumerate(("truncated.mp4", "zero_bytes.mp4", "not_a_video.mp4")):
        shutil.copyfile(broken / name, bridge / f"videos/val/broken{number}.mp4")
        annotation = {
            "texts": ["broken"],
            "videos": [{"video_path": f"videos/val/broken{number}.mp4"}],
            "video_length": 20,
        }
        (bridge / f"annotation/val/broken{number}.json").write_text(json.dumps(annotation))
    return root


@pytest.mark.parametrize("store", ["disk", pytest.param("s3", marks=pytest.mark.slow)])
def test_real_samples_with_broken_ones_mixed_in(mixed: Path, store: str, tmp_path: Path, request) -> None:
    if store == "s3":
        s3 = request.getfixturevalue("s3")
        shutil.copytree(mixed, tmp_path / "s3" / "bucket" / "in")
        assert s3.port
    root, output = (str(mixed), str(tmp_path / "out")) if store == "disk" else ("s3://bucket/in", "s3://bucket/out")
    sources = [
        f"rlds=openx-rlds:{root}/openx_rlds/bridge_dataset#name=bridge_dataset",
        f"lerobot=openx-lerobot:{root}/openx_lerobot/g1_v21#window.hop=16",
        f"calvin=calvin:{root}/calvin_sim/task_sample",
        f"ego4d=ego4d:{root}/ego4d_shaped/v2",
        f"bridge=vpp-layout:{root}/vpp_layout/bridge",
        f"sthv2=vpp-layout:{root}/vpp_layout/sthv2",
    ]
    code, printed = run("preprocess", "--sources", *sources, "--output", output, "--text-encoder", "tiny", cwd=tmp_path)
    assert code == 0, printed
    summary = check_output(output)
    clips = {dataset: products["clips"] for dataset, products in summary["datasets"].items()}
    episodes = {dataset: products.get("episodes", {}) for dataset, products in summary["datasets"].items()}
    assert clips["rlds"]["reasons"] == {
        "filtered:blank": 52,
        "rejected:bad_crc": 1,
        "rejected:truncated_record": 1,
    }
    assert (clips["rlds"]["written"], episodes["rlds"]["written"]) == (156, 52)
    assert clips["lerobot"]["reasons"] == {"rejected:missing_file": 98}
    assert episodes["lerobot"]["written"] == 2
    # 8 clips of 4 training segments and 2 cameras: one lost a picture of one camera, two share a frame that cannot be read
    assert (clips["calvin"]["written"], episodes["calvin"]["written"]) == (3, 1)
    assert clips["calvin"]["reasons"] == {
        "filtered:no_caption": 1,
        "rejected:decode_error": 4,
        "rejected:missing_key": 1,
        "rejected:unsafe_pickle": 1,
    }
    assert clips["ego4d"]["reasons"] == {"filtered:redacted": 2, "filtered:unsure_narration": 1}
    assert clips["bridge"]["written"] == 2
    assert clips["bridge"]["reasons"] == {
        "rejected:bad_json": 1,
        "rejected:empty_file": 1,
        "rejected:missing_file": 1,
        "rejected:not_a_video": 2,
        "rejected:unsafe_pickle": 1,
    }
    assert (clips["sthv2"]["written"], clips["sthv2"]["rejected"]) == (3, 0)
    taken_over = Manifest(output).select(
        "select dataset, count(*) as n from clips where latent_codec <> '' group by all"
    )
    assert taken_over.to_pylist() == [{"dataset": "bridge", "n": 2}]
    assert not list(tmp_path.rglob("PWNED"))
    for row in (
        Manifest(output).select("select status, reason, detail from clips where status <> 'written'").to_pylist()
    ):
        assert row["reason"]
        assert row["detail"]


def test_episode_shards_hold_every_camera_and_aligned_numbers(tmp_path: Path) -> None:
    source = write_calvin(tmp_path / "c", [(100, 149)], [(100, 130, "push the button")])
    code, printed = run(
        "preprocess",
        "--sources",
        f"c=calvin:{source}",
        "--output",
        tmp_path / "out",
        "--text-encoder",
        "none",
        cwd=tmp_path,
    )
    assert code == 0, printed
    (part,) = (tmp_path / "out/episodes/manifest/c").glob("0*.parquet")
    (row,) = pq.read_table(part).to_pylist()
    members = read_members(str(tmp_path / "out"), "episodes", row)
    assert Counter(name.rsplit(".", 1)[-1] for name in members) == {"mp4": 2, "npy": 2, "txt": 1, "json": 1}
    assert decode_video(members["rgb_gripper.mp4"]).shape == (31, 256, 256, 3)
    np.testing.assert_allclose(np.load(io.BytesIO(members["actions.npy"]))[:, 0], np.arange(100, 131) / 1000)
    assert (row["num_actions"], row["action_dim"], row["proprio_dim"]) == (31, 7, 15)


def test_a_stand_in_says_so_in_the_manifest_and_latents_fit_the_frames(tmp_path: Path) -> None:
    source = write_vpp_layout(tmp_path / "set", num_episodes=1, num_frames=18)
    settings = ["--text-encoder", "tiny", "--latents", "tiny"]
    code, printed = run(
        "preprocess", "--sources", f"d=vpp-layout:{source}", "--output", tmp_path / "out", *settings, cwd=tmp_path
    )
    assert code == 0, printed
    manifest = Manifest(str(tmp_path / "out"))
    for product, name, length in (("clips", "latents.npy", 16), ("episodes", "0.latents.npy", 18)):
        (row,) = manifest.select(f"select * from {product}").to_pylist()
        assert row["text_encoder_is_stand_in"]
        assert row["latent_codec_is_stand_in"]
        assert "random" in row["text_encoder"]
        latents = np.load(io.BytesIO(read_members(str(tmp_path / "out"), product, row)[name]))
        assert (latents.shape, latents.dtype) == ((length, 4, 32, 32), np.float16)
