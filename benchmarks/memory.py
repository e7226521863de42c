"""Peak memory of driver and workers: an hour of 720p in one file, ten minutes of it, and 2,000 short videos.

    python benchmarks/memory.py [--json] [--minutes 10 60] [--short 2000]

The long video is one minute of H.264 whose packets are repeated, so that writing it takes seconds. It is narrated
every ten seconds in Ego4D's format; windows of stride 2 and hop 32 cover it, so every frame is decoded. The short
ones are 2-second videos in the VPP authors' layout. Workers' memory is resident memory without what they share with
the object store.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import measure
import numpy as np
import ray

from pipelines.preprocess import preprocess
from pipelines.request import PreprocessSettings

FPS = 30


def write_minute(path: Path, seconds: int, size: tuple[int, int]) -> Path:
    """Writes a video of moving stripes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    ramp = np.linspace(0, 4 * np.pi, width)[None, :] + np.linspace(0, np.pi, height)[:, None]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "ultrafast", "g": "60", "bf": "0"}
        for number in range(seconds * FPS):
            gray = (127 + 100 * np.sin(ramp + number / 15)).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.repeat(gray[:, :, None], 3, 2), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def repeat(source: Path, target: Path, times: int) -> int:
    """Writes the packets of a video several times over; returns the number of frames."""
    target.parent.mkdir(parents=True, exist_ok=True)
    number = 0
    with av.open(str(target), "w") as container:
        stream = None
        for _ in range(times):
            with av.open(str(source)) as minute:
                if stream is None:
                    stream = container.add_stream_from_template(minute.streams.video[0])
                for packet in minute.demux(video=0):
                    if packet.size:
                        packet.pts = packet.dts = number
                        packet.time_base, packet.duration, packet.stream = Fraction(1, FPS), 1, stream
                        container.mux(packet)
                        number += 1
    return number


def long_video(folder: Path, minute: Path, minutes: int) -> str:
    """Ego4D's folder with one long video; returns the value of `--sources`."""
    num_frames = repeat(minute, folder / "full_scale" / "video.mp4", minutes)
    metadata = {"fps": float(FPS), "num_frames": num_frames}
    (folder / "ego4d.json").write_text(json.dumps({"videos": [{"video_uid": "video", "video_metadata": metadata}]}))
    told = [{"timestamp_sec": float(t), "narration_text": f"#C C does {t}"} for t in range(5, minutes * 60, 10)]
    (folder / "annotations").mkdir()
    narrations = {"video": {"narration_pass_1": {"narrations": told}, "status": "complete"}}
    (folder / "annotations" / "narration.json").write_text(json.dumps(narrations))
    return f"long=ego4d:{folder}#window_s=10&window.mode=sliding&window.stride=2&window.hop=32"


def short_videos(folder: Path, count: int) -> str:
    """Many short videos in the VPP authors' layout."""
    video = write_minute(folder / "one.mp4", 2, (320, 240))
    (folder / "videos").mkdir()
    (folder / "annotation" / "train").mkdir(parents=True)
    for number in range(count):
        shutil.copyfile(video, folder / "videos" / f"{number}.mp4")
        annotation = {
            "texts": [f"video {number}"],
            "videos": [{"video_path": f"videos/{number}.mp4"}],
            "video_length": 2 * FPS,
        }
        (folder / "annotation" / "train" / f"{number}.json").write_text(json.dumps(annotation))
    return f"short=vpp-layout:{folder}"


def measured(source: str, output: Path, name: str) -> dict[str, float]:
    """Runs the job in a Ray of its own and reports its peaks."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    began = time.perf_counter()
    settings = PreprocessSettings(sources=(source,), output=str(output), products=("clips",), text_encoder="none")
    with measure.peak_memory() as peak:
        summary = preprocess(settings, None, None)
    ray.shutdown()
    written = sum(products["clips"]["written"] for products in summary["datasets"].values())
    return {
        f"{name}_clips": written,
        f"{name}_driver_peak_mb": peak.driver_mb,
        f"{name}_worker_peak_mb": peak.worker_mb,
        f"{name}_s": time.perf_counter() - began,
    }


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--minutes", type=int, nargs="+", default=[10, 60])
    parser.add_argument("--short", type=int, default=2000)
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        minute = write_minute(root / "minute.mp4", 60, (1280, 720))
        for minutes in arguments.minutes:
            name = f"{minutes}min_720p"
            figures |= measured(long_video(root / name, minute, minutes), root / f"{name}_out", name)
        name = f"{arguments.short}_short"
        figures |= measured(short_videos(root / name, arguments.short), root / f"{name}_out", name)
    first, last = (f"{minutes}min_720p_worker_peak_mb" for minutes in (arguments.minutes[0], arguments.minutes[-1]))
    figures["worker_peak_ratio_longest_to_shortest"] = figures[last] / figures[first]
    measure.finish(figures, arguments.json)


if __name__ == "__main__":
    main()
