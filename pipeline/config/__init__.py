"""One frozen, validated configuration a stage; flags and recipe keys are made from the fields."""

from pipeline.config.bench import BenchConfig
from pipeline.config.check import CheckConfig
from pipeline.config.export import ExportConfig
from pipeline.config.masks import ExportMasksConfig, ImportMasksConfig
from pipeline.config.report import ReportConfig
from pipeline.config.serve import ServeConfig
from pipeline.config.train import TrainConfig

__all__ = [
    "BenchConfig",
    "CheckConfig",
    "ExportConfig",
    "ExportMasksConfig",
    "ImportMasksConfig",
    "ReportConfig",
    "ServeConfig",
    "TrainConfig",
]
