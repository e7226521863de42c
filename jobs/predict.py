"""Predicts videos from a picture and a text, or judges predictions of clips, and shows them. See `--help`."""

import json
import logging

from runtime.job import run_job
from runtime.settings import load_settings, to_mapping
from schemas.storage import join
from vpp.video.predict_job import PredictSettings, predict


def main() -> None:
    """Parses, logs the resolved settings, predicts, prints the metrics and where the videos are."""
    settings = load_settings(PredictSettings, "predict")
    logging.info("settings: %s", json.dumps(to_mapping(settings)))
    record = predict(settings)
    for stand_in in record["stand_ins"]:
        print(f"stand-in, not a trained model: {stand_in}")
    if "metrics" in record:
        metrics = record["metrics"]
        means = metrics["frames_8_to_last"]
        print(f"{'frames 8 to last':18} {'predicted':>10} {'first frame':>12}")
        for name in ("psnr", "ssim"):
            print(f"{name:18} {means[name]:>10.3f} {means[name + '_copy']:>12.3f}")
        pixels = metrics["pixels"]
        print(f"{'psnr where moving':18} {pixels['moving_psnr']:>10.3f} {pixels['moving_psnr_copy']:>12.3f}")
        gains = metrics["latents"]
        print(f"latents against a copy: {gains['gain_db']:+.2f} dB, {gains['moving_gain_db']:+.2f} dB where moving")
        print(f"fvd: {'' if record['fvd'] is None else format(record['fvd'], '.2f') + ', '}{record['fvd_remark']}")
    for file in (*record["files"], "prediction.json"):
        print(join(settings.output, file))


if __name__ == "__main__":
    run_job(main)
