"""Shared by all tests: one CPU thread for numerics, no network, no colours."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("NO_COLOR", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
