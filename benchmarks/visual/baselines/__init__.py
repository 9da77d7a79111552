"""What memories are compared with on pictures."""

from benchmarks.visual.baselines.finetune import VisualFineTune
from benchmarks.visual.baselines.lora import VisualLora
from benchmarks.visual.baselines.none import VisualNone
from benchmarks.visual.baselines.serac import Serac

BASELINES = {baseline.name: baseline for baseline in (VisualNone, VisualFineTune, VisualLora, Serac)}
