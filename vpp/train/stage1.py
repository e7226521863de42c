"""Stage 1: fine-tunes the text-guided video model on clips. Settings, the task for the engine, and the job."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import os
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from diffusers import AutoencoderKLTemporalDecoder

from schemas.encoder import same_model
from schemas.errors import UsageError
from schemas.settings import commit, to_mapping
from schemas.storage import check_writable, join, write_bytes
from vpp.data.clip_batch import ClipBatch
from vpp.data.clip_index import ClipIndex
from vpp.data.loader import ClipLoader
from vpp.data.settings import DataSettings
from vpp.data.streams import training_order
from vpp.train.engine import Outcome, TrainSettings, train
from vpp.train.run_log import RunLog
from vpp.train.video_validation import ValidationSettings, VideoValidation
from vpp.train.worker import Worker
from vpp.video.codec import CodecSettings
from vpp.video.denoiser import DenoiserConfig, VideoDenoiser
from vpp.video.objective import Draws, ObjectiveSettings, draw, draw_sigmas, sample_generator, video_loss
from vpp.video.predict import encode_frames
from vpp.video.svd import PRESETS, ModelDescription, load_denoiser, load_vae, save_pipeline, unet_from_scratch

PUBLISHED_BASE = "stabilityai/stable-video-diffusion-img2vid"
