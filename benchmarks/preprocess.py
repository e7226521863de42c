"""Clips per second of the whole job, of the plain way, and of the limit; measured in turn, in one run, on one core.

    python benchmarks/preprocess.py [--json] [--rounds 3] [--samples FOLDER]

- ours: `pipelines.preprocess` with Ray on that core: listing, planning, decoding, encoding, tars, checksums,
  manifest, summary. Start-up (starting Ray and its first worker) is apart. No text encoder, since the other two have
  none.
- plain: for every clip the video is opened anew and its frames are fetched by index, as the published data loader
  does, then resized and encoded; once with decord2, once with PyAV (seek to the keyframe); the faster one counts.
- limit: a tight loop that decodes and resizes each frame once and encodes the same clips, nothing else.

All three resize and encode with the same functions. The video is 640x480 H.264 (keyframe every 250 frames, x264's
default); clips have stride 2 and hop 4. With `--samples` the same is done for real samples: a folder with
`openx_lerobot/g1_v21` and `vpp_layout/`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import decord
import measure
import numpy as np
import ray
from PIL import Image

from pipelines.encode_video import VideoSettings, encode_video
from pipelines.frames import FrameResizer
from pipelines.preprocess import preprocess
from pipelines.request import PreprocessSettings
from pipelines.sources import open_source, parse_source, window_settings
from pipelines.windows import Window, WindowSettings, windows
from schemas.episode import Episode

VIDEO = VideoSettings()
Work = list[tuple[str, list[tuple[int, ...]]]]
"""Videos, each with the frame numbers of its clips."""


def write_source(folder: Path, num_videos: int, num_frames: int) -> str:
    """Writes 640x480 H.264 videos of a camera moving over a scene, in the VPP authors' layout; returns the source."""
    rng = np.random.default_rng(0)
    scene = np.zeros((600, 800, 3))
    for cells, strength in ((4, 90), (16, 50), (64, 25), (200, 10)):  # detail at several scales, as pictures have
        coarse = Image.fromarray((rng.random((cells * 3 // 4, cells, 3)) * 255).astype(np.uint8))
        scene += np.asarray(coarse.resize((800, 600), Image.Resampling.BICUBIC)) / 255.0 * strength
    scene = scene.clip(0, 255).astype(np.uint8)
    for number in range(num_videos):
        path = folder / "videos" / "train" / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=30)
            stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
            for index in range(num_frames):
                x, y = int(80 + 80 * np.sin(index / 40)), int(60 + 60 * np.cos(index / 25))
                noise = rng.integers(-2, 3, (480, 640, 1))  # a camera's
                picture = (scene[y : y + 480, x : x + 640] + noise).clip(0, 255).astype(np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        annotation = folder / "annotation" / "train" / f"{number}.json"
        annotation.parent.mkdir(parents=True, exist_ok=True)
        video = {"video_path": f"videos/train/{number}.mp4"}
        annotation.write_text(json.dumps({"texts": ["a pattern moves"], "videos": [video], "video_length": num_frames}))
    return f"bench=vpp-layout:{folder}#window.mode=sliding&window.stride=2&window.hop=4&window.at_end=drop"


def work_of(sources: list[str], video_of: Callable[[Episode], str]) -> Work:
    """The same clips that the job will make, by video."""
    work: Work = []
    for text in sources:
        spec = parse_source(text)
        settings = window_settings(spec, WindowSettings())
        source = open_source(spec)
        for part in source.parts():
            for episode in source.list_part(part):
                if isinstance(episode, Episode):
                    clips = [w.indices for w in windows(episode, settings) if isinstance(w, Window)]
                    work.append((video_of(episode), clips))
    return work


def limit(work: Work) -> int:
    """Decodes and resizes each frame once, encodes every clip."""
    resize, made = FrameResizer(), 0
    for path, clips in work:
        needed = {index for indices in clips for index in indices}
        frames = {}
        with av.open(path) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            waiting = iter(clips)
            clip = next(waiting, None)
            for index, frame in enumerate(container.decode(stream)):
                if index in needed:
                    frames[index] = resize(frame)
                while clip is not None and index == clip[-1]:
                    encode_video([frames[number] for number in clip], VIDEO)
                    made += 1
                    following = next(waiting, None)
                    if following is not None:
                        for number in [number for number in frames if number < following[0]]:
                            del frames[number]
                    clip = following
    return made


def plain_pyav(work: Work) -> int:
    """Opens the video for every clip, seeks to the keyframe before it, decodes to its end."""
    made = 0
    for path, clips in work:
        for clip in clips:
            resize, frames = FrameResizer(), {}
            with av.open(path) as container:
                stream = container.streams.video[0]
                stream.codec_context.thread_count = 1
                step = Fraction(1, 1) / (stream.average_rate * stream.time_base)
                container.seek(int(clip[0] * step), stream=stream)
                for frame in container.decode(stream):
                    number = round(frame.pts / step)
                    if number in clip:
                        frames[number] = resize(frame)
                    if number >= clip[-1]:
                        break
            encode_video([frames[number] for number in clip], VIDEO)
            made += 1
    return made


def plain_decord(work: Work) -> int:
    """Opens the video for every clip with decord and gets its frames by index."""
    made = 0
    for path, clips in work:
        for clip in clips:
            resize = FrameResizer()
            reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
            pictures = reader.get_batch(list(clip)).asnumpy()
            encode_video([resize(av.VideoFrame.from_ndarray(picture, format="rgb24")) for picture in pictures], VIDEO)
            made += 1
    return made


def ours(sources: list[str], folder: Path) -> int:
    """The job itself, into a new folder."""
    settings = PreprocessSettings(sources=tuple(sources), output=str(folder), products=("clips",), text_encoder="none")
    summary = preprocess(settings, None, None)
    return sum(products["clips"]["written"] for products in summary["datasets"].values())


def rate(way: Callable[[], int]) -> tuple[float, int]:
    """Clips per second, and how many."""
    began = time.perf_counter()
    made = way()
    return made / (time.perf_counter() - began), made


def compare(
    name: str, sources: list[str], video_of: Callable[[Episode], str], rounds: int, plain_clips: int
) -> dict[str, float]:
    """Runs the three in turn and reports medians, and medians of the ratios of each round."""
    work = work_of(sources, video_of)
    every = max(1, sum(len(clips) for _, clips in work) // plain_clips)
    some = [(path, clips[::every]) for path, clips in work]  # every clip costs the plain way the same
    rates: dict[str, list[float]] = {"limit": [], "ours": [], "plain_decord2": [], "plain_pyav": []}
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for way, call in {
                "limit": lambda: limit(work),
                "ours": lambda: ours(sources, Path(folder) / "out"),
                "plain_decord2": lambda: plain_decord(some),
                "plain_pyav": lambda: plain_pyav(some),
            }.items():
                value, made = rate(call)
                rates[way].append(value)
                print(f"{name}: round {number + 1}: {way}: {made} clips, {value:.1f} clips/s", flush=True)
    plain = [max(pair) for pair in zip(rates["plain_decord2"], rates["plain_pyav"], strict=True)]
    figures = {f"{name}_{way}_clips_per_s": statistics.median(values) for way, values in rates.items()}
    for other, values in {"plain": plain, "limit": rates["limit"]}.items():
        ratios = [mine / theirs for mine, theirs in zip(rates["ours"], values, strict=True)]
        figures[f"{name}_ratio_vs_{other}"] = statistics.median(ratios)
    return figures


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--videos", type=int, default=4)
    parser.add_argument("--frames", type=int, default=1200)
    parser.add_argument("--plain-clips", type=int, default=150, help="clips that the plain way is measured on")
    parser.add_argument(
        "--samples", type=Path, help="a folder with openx_lerobot/g1_v21 and vpp_layout/ for real videos"
    )
    arguments = parser.parse_args()
    core = measure.pin_to_one_core()
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    with tempfile.TemporaryDirectory() as folder:
        source = write_source(Path(folder) / "source", arguments.videos, arguments.frames)
        warm_up = write_source(Path(folder) / "warm_up", 1, 60)
        ours([warm_up], Path(folder) / "warm_up_out")
        root = Path(folder) / "source"
        figures = compare("h264", [source], partial(video_path, root), arguments.rounds, arguments.plain_clips)
        if arguments.samples:
            copies = Path(folder) / "copies"
            figures |= compare_samples(arguments.samples, copies, arguments.rounds, arguments.plain_clips)
    ray.shutdown()
    result = {
        "core": core,
        "ratio_vs_plain": figures["h264_ratio_vs_plain"],
        "ratio_vs_limit": figures["h264_ratio_vs_limit"],
    }
    measure.finish(result | figures, arguments.json)


def compare_samples(folder: Path, copies: Path, rounds: int, plain_clips: int) -> dict[str, float]:
    """The same on real videos (AV1, MPEG-4, VP9), the short ones listed many times so that there is something to do."""
    window = "#window.mode=sliding&window.stride=2&window.hop=4&window.at_end=drop"
    lerobot = folder / "openx_lerobot/g1_v21"
    figures = compare(
        "g1_av1", [f"g1=openx-lerobot:{lerobot}{window}"], partial(video_path, lerobot), rounds, plain_clips
    )
    for name, path in (("bridge_mpeg4", "vpp_layout/bridge"), ("sthv2_vp9", "vpp_layout/sthv2")):
        root = copies / name
        list_many_times(folder / path, root, 40)
        figures |= compare(name, [f"s=vpp-layout:{root}{window}"], partial(video_path, root), rounds, plain_clips)
    return figures


def list_many_times(source: Path, target: Path, times: int) -> None:
    """Makes a dataset in the VPP authors' layout whose annotations name the same videos again and again."""
    (target / "annotation" / "val").mkdir(parents=True)
    (target / "videos").symlink_to((source / "videos").resolve())
    for annotation in sorted((source / "annotation" / "val").iterdir()):
        for number in range(times):
            shutil.copy(annotation, target / "annotation" / "val" / f"{annotation.stem}_{number}.json")


def video_path(root: Path, episode: Episode) -> str:
    """The video of an episode with one camera, as its source names it."""
    video = next(iter(episode.locator["videos"].values()))
    return str(root / (video if isinstance(video, str) else video["path"]))


if __name__ == "__main__":
    main()
